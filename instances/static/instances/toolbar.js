// The actions on the whole account: refresh, synchronize, and clear the cache after a confirmation.

import {Outage} from './service.js';
import {send} from './session.js';
import {count, sayNumber} from './words.js';

// A cleared cache is filled within seconds where the service synchronizes on its own.
const MAX_FILL_TRIES = 8;
const FILL_PAUSE_MS = 700;

// `ask` is that of confirm.js.
export function createToolbar({ask, inventory, live, statusLine}) {
    let cleared = ''; // the message about a cleared cache, until the cache is filled

    async function refresh() {
        // A refresh that is under way may have read the list before the button was pressed.
        await live.refreshAnew();
        if (inventory.failure) {
            // The banner has the reason.
            throw new Outage('Not refreshed.', '');
        }
        return `Refreshed: ${count(inventory.instances.length)}.`;
    }

    async function sync() {
        // Refreshed after a failure too: the banner then tells how long it has been failing.
        const result = await send('POST', '/api/instances/sync').finally(live.refresh);
        const numbers = {
            new: result.added,
            changed: result.changed,
            removed: result.deleted,
            'missing but not confirmed': result.unconfirmed,
            unchanged: result.novitaInstances - result.added - result.changed,
        };
        const parts = Object.entries(numbers).filter(([, number]) => number > 0).map(([word, number]) => `${sayNumber(number)} ${word}`);
        const seconds = (result.duration / 1000).toFixed(1);
        return `Synchronized: ${[count(result.novitaInstances), ...parts].join(', ')}, in ${seconds} s. ${result.errors.join(' ')}`;
    }

    async function clear() {
        const result = await send('POST', '/api/cache/clear');
        statusLine.tell(`${result.message}. Waiting for the next synchronization…`);
        // A refresh that is under way may have read the list before the cache was cleared.
        await live.refreshAnew();
        for (let tries = 0; !inventory.hasCopy && tries < MAX_FILL_TRIES; tries += 1) {
            await new Promise(resolve => setTimeout(resolve, FILL_PAUSE_MS));
            await live.refresh();
        }
        cleared = result.message;
        return sayCleared(inventory.hasCopy);
    }

    function sayCleared(isFilled) {
        return isFilled ? `${cleared}, and synchronized again: ${count(inventory.instances.length)}.`
            : `${cleared}. The next synchronization fills it.`;
    }

    // Corrects the status line once a cleared cache is filled.
    function tellFilled() {
        if (inventory.hasCopy && cleared) {
            statusLine.amend(sayCleared(false), sayCleared(true));
            cleared = '';
        }
    }

    async function askToClear(button) {
        const number = count((inventory.instances || []).length);
        const isSure = await ask({
            title: 'Clear the cache',
            sentences: [`${number} cached. The list stays empty until the next synchronization.`, 'Nothing changes at Novita.ai.'],
            action: 'Clear cache',
            isDanger: true,
        });
        if (isSure) {
            await statusLine.run(button, 'Clearing the cache…', clear);
        }
    }

    return {
        tellFilled,
        actions: {
            refresh: button => statusLine.run(button, 'Refreshing…', refresh),
            sync: button => statusLine.run(button, 'Synchronizing with Novita.ai…', sync),
            clear: askToClear,
        },
    };
}
