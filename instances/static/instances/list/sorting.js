// The order of the rows, and the headings that change it.

import {compareKeys, compareTexts, getNaturalKey} from '../order.js';

const DEFAULT_ORDERING = '-createdAt';

export function createSorting({head, address}) {
    // Column → instance → its key. A refresh keeps the objects of unchanged instances.
    const keys = new Map();

    function getOrdering() {
        const ordering = address.query.ordering || DEFAULT_ORDERING;
        return {name: ordering.replace(/^-/, ''), isDescending: ordering.startsWith('-')};
    }

    // Returns a sorted copy.
    function sort(found) {
        const {name, isDescending} = getOrdering();
        const sorted = found.map(one => [getKey(name, one), one]);
        sorted.sort(([keyA, a], [keyB, b]) => {
            const order = compareKeys(keyA, keyB) || compareTexts(a.id, b.id);
            return isDescending ? -order : order;
        });
        return sorted.map(([, one]) => one);
    }

    function getKey(name, one) {
        if (!keys.has(name)) {
            keys.set(name, new WeakMap());
        }
        const known = keys.get(name);
        if (!known.has(one)) {
            known.set(one, makeKey(one[name]));
        }
        return known.get(one);
    }

    function render() {
        const {name, isDescending} = getOrdering();
        for (const heading of head.querySelectorAll('[data-column]')) {
            const {column} = heading.dataset;
            const order = column !== name ? 'none' : isDescending ? 'descending' : 'ascending';
            const next = order === 'ascending' ? `-${column}` : column;
            heading.setAttribute('aria-sort', order);
            heading.querySelector('a').href = address.makeLink({ordering: next, page: 1});
            heading.dataset.next = next;
        }
    }

    function follow(heading) {
        address.change({ordering: heading.dataset.next, page: 1}, {isStep: true});
    }

    return {sort, render, follow};
}

// An unknown value comes before all others.
function makeKey(value) {
    return typeof value === 'string' ? getNaturalKey(value) : typeof value === 'number' ? getNaturalKey(value.toFixed(5)) : [];
}
