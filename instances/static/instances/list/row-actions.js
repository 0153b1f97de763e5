// Start, stop and restart of one instance: its button, the question, and the request.

import {getNow} from '../clock.js';
import {find, make, set, setDisabled, setText} from '../elements.js';
import {send} from '../session.js';
import {getLabel, isMoving} from '../statuses.js';
import {capitalize, sayClock, sayCost} from '../words.js';
import {removeUnknown} from './inventory.js';

const STORAGE_PAGE = {text: "Novita's page on storage", href: 'https://novita.ai/docs/guides/gpu-instance-pricing'};

// `ask` is that of confirm.js.
export function createRowActions({ask, inventory, messages, protection, getRow, refresh, render}) {
    const requests = new Map(); // id → the action that was sent and has no answer yet
    const followed = new Map(); // id → the instance as the page knew it when its action was answered

    function canRequest(action, one) {
        return one.actions.includes(action) && protection.permits(action, one.id);
    }

    // A row has one button; its menu has the rest.
    function update(row, one) {
        set(find(row, '.more'), 'ariaLabel', `More actions for ${one.name || one.id}`);
        const place = find(row, '.buttons');
        const action = requests.get(one.id) || ['stop', 'start'].find(name => canRequest(name, one));
        const button = place.firstElementChild || (action && place.appendChild(make('button', {type: 'button', 'data-needs': 'operator'})));
        if (action) {
            set(button.dataset, 'do', 'act');
            set(button.dataset, 'action', action);
            setText(button, capitalize(action));
            set(button, 'ariaLabel', `${capitalize(action)} ${one.name || one.id}`);
            setDisabled(button, requests.has(one.id));
        } else if (button) {
            const hadFocus = button === document.activeElement;
            button.remove();
            if (hadFocus) {
                find(row, '.name').focus({preventScroll: true});
            }
        }
        // A list without news of the instance, as in an outage, says nothing of the action.
        if (followed.has(one.id) && followed.get(one.id) !== one && !requests.has(one.id) && !isMoving(one)) {
            followed.delete(one.id);
            messages.tell(one.id, `${getLabel(one.status)}${getNow() ? ` at ${sayClock(getNow())}` : ''}.`);
        }
    }

    // Asks, and then sends the request.
    async function act(action, id) {
        const one = inventory.get(id);
        if (!one || requests.has(id)) {
            return;
        }
        const findOpener = () => {
            const row = getRow(id);
            return row?.isConnected ? row.querySelector('[data-do=act]') || row.querySelector('.name') : null;
        };
        if (await ask({...describe(action, one), findOpener})) {
            await request(action, id);
        }
    }

    async function request(action, id) {
        requests.set(id, action);
        messages.tell(id, `Sending the ${action} request…`);
        render();
        try {
            const {message} = await send('POST', `/api/instances/${encodeURIComponent(id)}/${action}`);
            // The row names the instance already.
            messages.tell(id, message.replace(` initiated for ${inventory.get(id)?.name || id}`, ' requested').replace(/\.?$/, '.'));
            followed.set(id, inventory.get(id));
        } catch (error) {
            messages.fail(id, error);
        }
        await refresh();
        requests.delete(id);
        // A refresh that was under way may have read the list before the action.
        await refresh();
    }

    return {
        update,
        act,
        canRequest,
        getRequest: id => requests.get(id),
        forgetUnknown: isKnown => removeUnknown(followed, isKnown),
        actions: {
            // The button is in an element that names the instance: a row, a menu, a drawer.
            act: button => act(button.dataset.action, button.closest('[data-id]').dataset.id),
        },
    };
}

function describe(action, one) {
    const head = {
        title: capitalize(action),
        name: one.name || one.id,
        facts: [one.gpuNum && one.productName ? `${one.gpuNum} × ${one.productName}` : one.productName, one.region, one.name ? one.id : '']
            .filter(Boolean).join(' · '),
        action: capitalize(action),
        isDanger: action !== 'start',
    };
    return {
        start: {...head, sentences: [sayStartCost(one)]},
        restart: {...head, sentences: ['All jobs on it end.', sayRestartCost(one)]},
        stop: {
            ...head,
            sentences: [
                saySavings(one),
                'All jobs on it end. Data on local disks may be lost; Novita keeps it for up to 7 days.',
                'It may not start again: the GPU can be taken meanwhile.',
            ],
            link: STORAGE_PAGE,
        },
    }[action];
}

function saySavings({prepaid, costPerHour}) {
    return prepaid ? 'Prepaid by the month: stopping saves nothing.'
        : costPerHour === null ? 'What this saves is not known: its price is unknown.'
        : costPerHour === 0 ? 'This saves nothing: it costs nothing now.' : `Saves ${sayCost(costPerHour)}.`;
}

function sayStartCost({prepaid, pricePerHour}) {
    return prepaid ? 'Prepaid by the month: starting costs nothing more.'
        : pricePerHour === null ? 'What this costs is not known: its price is unknown. It is billed until it is stopped.'
        : `Costs ${sayCost(pricePerHour)} until it is stopped.`;
}

function sayRestartCost({prepaid, pricePerHour}) {
    return prepaid ? 'Prepaid by the month: restarting costs nothing more.'
        : pricePerHour === null ? 'What it costs is not known: its price is unknown. It is billed as before.'
        : `It costs ${sayCost(pricePerHour)}, as before.`;
}
