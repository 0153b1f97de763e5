// The instances of an operation in the panel: four lists by state, each instance with the server's sentence on it.

import {clone, set, setText} from '../elements.js';
import {sortByName} from '../order.js';
import {capitalize, sayClock, sayMoment, sayNumber} from '../words.js';
import {findRepeatedNames, getName, isRunning} from './states.js';
import {sayDone} from './words.js';

const LISTS = {
    stillRunning: 'trouble',
    failed: 'trouble',
    unknown: 'trouble',
    requested: 'under-way',
    pending: 'under-way',
    confirmed: 'confirmed',
    skipped: 'skipped',
};

export function createTargets() {
    const rows = new Map(); // id → {element, look}

    function render(operation) {
        const repeated = findRepeatedNames(operation.targets);
        const sizes = {};
        const last = {}; // list → its row before the next one
        for (const one of sortByName(operation.targets, getName, target => target.instanceId)) {
            const name = getList(one, operation);
            sizes[name] = (sizes[name] || 0) + 1;
            const element = update(one, repeated.has(getName(one)));
            const list = document.getElementById(`targets-${name}`);
            const next = last[name] ? last[name].nextElementSibling : list.firstElementChild;
            if (next !== element) {
                list.insertBefore(element, next);
            }
            last[name] = element;
        }
        for (const name of new Set(Object.values(LISTS))) {
            const section = document.getElementById(`targets-${name}`).parentElement;
            set(section, 'hidden', !sizes[name]);
            setText(section.querySelector('.size'), sayNumber(sizes[name] || 0));
        }
        setText(document.getElementById('targets-confirmed-title'), capitalize(sayDone(operation.kind)));
        setText(document.getElementById('targets-trouble-title'), `Not ${sayDone(operation.kind)}`);
    }

    function showTime(element, time) {
        set(element, 'dateTime', time);
        set(element, 'title', time && sayMoment(time));
        setText(element, time && sayClock(time));
    }

    // After the end nothing is in progress any more.
    function getList(one, operation) {
        return LISTS[one.state] === 'under-way' && !isRunning(operation) ? 'trouble' : LISTS[one.state];
    }

    function update(one, isRepeated) {
        const row = rows.get(one.instanceId) || {element: clone('target-template'), look: ''};
        rows.set(one.instanceId, row);
        const {element} = row;
        const look = JSON.stringify([one, isRepeated]);
        if (row.look !== look) {
            row.look = look;
            const state = element.querySelector('.target-state');
            setText(element.querySelector('.target-name'), getName(one));
            setText(element.querySelector('.target-id'), isRepeated ? one.instanceId : '');
            setText(state, one.message);
            set(state.dataset, 'state', one.state);
            showTime(element.querySelector('.target-time'), one.confirmedAt || one.requestedAt || '');
        }
        return element;
    }

    function clear() {
        rows.clear();
        for (const name of Object.values(LISTS)) {
            document.getElementById(`targets-${name}`).replaceChildren();
        }
    }

    return {render, clear};
}
