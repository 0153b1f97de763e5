// The button that stops everything: how many instances it stops, and what that saves per hour. The server's HTML says the
// same (pages/bar.py).

import {set, setText} from './elements.js';
import {needsStop} from './statuses.js';
import {count, sayCost, sayNumber} from './words.js';

// `isProtected` tells whether an instance is left out.
export function createStopAll({inventory, overview, isProtected}) {
    const button = document.getElementById('stop-all');
    const [number, money] = document.getElementById('stop-all-size').children;

    // Returns the instances that a stop of all stops, as far as this page can tell; null when it has no list.
    function list() {
        const {hasCopy, instances} = inventory;
        return instances && hasCopy ? instances.filter(one => needsStop(one) && !isProtected(one.id)) : null;
    }

    function render() {
        // Even a fresh list may lack an instance that has just started, so the button is never disabled. An old list names
        // no number either.
        const isOld = inventory.failure !== null || overview.value.health.sync.isStale;
        const targets = isOld ? null : list();
        const said = targets === null ? {} : targets.length ? describe(targets) : {title: sayNothing()};
        setText(number, targets?.length ? sayNumber(targets.length) : '');
        setText(money, said.money ?? '');
        set(button, 'title', said.title ?? '');
    }

    function describe(targets) {
        // Prepaid instances cost nothing per hour, and neither do those that Novita doesn't charge for yet.
        const costs = targets.filter(one => !one.prepaid && one.costPerHour !== 0).map(one => one.costPerHour);
        const prices = costs.filter(cost => cost !== null);
        const unknown = costs.length - prices.length;
        const saved = sayCost(prices.reduce((sum, price) => sum + price, 0));
        const saves = [prices.length && saved, unknown && `${sayNumber(unknown)} unknown`].filter(Boolean).join(' + ');
        return {
            money: prices.length ? ` · ${saved}${unknown ? '+' : ''}` : '',
            title: `Stops ${count(targets.length)}. ${saves ? `Saves ${saves}.` : 'Saves nothing now.'}`,
        };
    }

    function sayNothing() {
        const stopping = inventory.countGroup('stopping');
        const kept = inventory.instances.filter(needsStop).length;
        const rest = [stopping && `${sayNumber(stopping)} stopping`, kept && `${sayNumber(kept)} protected`].filter(Boolean).join(', ');
        return `By this list nothing is to stop: ${rest || 'no instance is running'}. Pressing reads the account anew.`;
    }

    return {render, count: () => list()?.length ?? null};
}
