// The figures at the top of the page.

import {set, setText} from './elements.js';
import {sayAge, sayCost, sayMoment} from './words.js';

export function createFigures({inventory}) {
    const starting = document.getElementById('figure-starting');
    const syncTime = document.querySelector('#figure-sync time');

    function render() {
        const {hasCopy, instances} = inventory;
        const number = inventory.countGroup('starting');
        setText(document.getElementById('figure-total'), hasCopy ? String(instances.length) : '–');
        setText(document.getElementById('figure-running'), hasCopy ? String(inventory.countGroup('running')) : '–');
        setText(document.getElementById('figure-cost'), hasCopy ? describeCost(instances) : '–');
        setText(starting, hasCopy && number ? ` · ${number} starting` : '');
        set(starting, 'hidden', !starting.textContent);
    }

    function showRedis(state) {
        setText(document.getElementById('figure-redis'), state);
    }

    function tick() {
        const {asOf, isSyncing} = inventory;
        set(syncTime, 'dateTime', asOf);
        setText(syncTime, asOf ? sayAge(asOf) : isSyncing ? 'synchronizing…' : 'unknown');
        set(syncTime, 'title', asOf ? sayMoment(asOf) : '');
    }

    return {render, showRedis, tick};
}

function describeCost(instances) {
    const unknown = instances.filter(one => one.costPerHour === null).length;
    const sum = instances.reduce((total, one) => total + (one.costPerHour || 0), 0);
    return `${sayCost(sum)}${unknown ? ` · ${unknown} unknown` : ''}`;
}
