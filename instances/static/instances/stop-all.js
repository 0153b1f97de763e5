// The button that stops everything: how many instances it stops, and what that saves per hour. The server's HTML says the
// same (pages/bar.py).

import {set, setDisabled, setText} from './elements.js';
import {needsStop} from './statuses.js';
import {count, sayCost} from './words.js';

// `isProtected` tells whether an instance is left out.
export function createStopAll({inventory, overview, isProtected, statusLine}) {
    const button = document.getElementById('stop-all');
    const [number, money] = document.getElementById('stop-all-size').children;

    // Returns the instances that a stop of all stops, as far as this page can tell; null when it has no list.
    function list() {
        const {hasCopy, instances} = inventory;
        return instances && hasCopy ? instances.filter(one => needsStop(one) && !isProtected(one.id)) : null;
    }

    function render() {
        // An old list may lack an instance that runs, so it names no number and disables nothing.
        const isOld = inventory.failure !== null || overview.value.health.sync.isStale;
        const targets = isOld ? null : list();
        const said = targets === null ? {} : targets.length ? describe(targets) : {title: sayNothing()};
        setText(number, targets?.length ? String(targets.length) : '');
        setText(money, said.money ?? '');
        set(button, 'title', said.title ?? '');
        setDisabled(button, targets !== null && !targets.length);
    }

    function describe(targets) {
        const charged = targets.filter(one => !one.prepaid);
        const prices = charged.map(one => one.pricePerHour).filter(price => price !== null);
        const unknown = charged.length - prices.length;
        const saved = sayCost(prices.reduce((sum, price) => sum + price, 0));
        const saves = [prices.length && saved, unknown && `${unknown} unknown`].filter(Boolean).join(' + ');
        return {
            money: prices.length ? ` · ${saved}${unknown ? '+' : ''}` : '',
            title: `Stops ${count(targets.length)}. ${saves ? `Saves ${saves}.` : 'Saves nothing: prepaid.'}`,
        };
    }

    function sayNothing() {
        const stopping = inventory.countGroup('stopping');
        const kept = inventory.instances.filter(needsStop).length;
        const rest = [stopping && `${stopping} stopping`, kept && `${kept} protected`].filter(Boolean).join(', ');
        return `Nothing to stop: ${rest || 'no instance is running'}.`;
    }

    // A disabled button says why, since fingers and keys see no tooltip.
    button.addEventListener('click', () => {
        if (button.getAttribute('aria-disabled')) {
            statusLine.tell(button.title);
        }
    });

    return {render, count: () => list()?.length ?? null};
}
