// The order of the rows, and the headings that change it.

import {getNow} from '../clock.js';
import {set} from '../elements.js';
import {compareKeys, compareTexts, getSortKey, getUrgencyKey, URGENCY} from '../order.js';

const MINUTE_MS = 60_000;

export function createSorting({head, address}) {
    // Column → instance → its key. A refresh keeps the objects of unchanged instances.
    const keys = new Map();
    let sorted = null; // {instances, ordering, minute, list}: a search needs the same order again and again

    // Returns all instances in the order of the address.
    function sort(instances) {
        const ordering = address.query.ordering || URGENCY;
        const column = getColumn(ordering);
        const minute = column === 'spent' ? Math.floor((getNow() ?? 0) / MINUTE_MS) : 0;
        if (sorted?.instances !== instances || sorted.ordering !== ordering || sorted.minute !== minute) {
            sorted = {instances, ordering, minute, list: makeSorted(instances, ordering, column)};
        }
        return sorted.list;
    }

    function makeSorted(instances, ordering, column) {
        const sign = ordering.startsWith('-') ? -1 : 1;
        return instances.map(one => [getKey(column, one), one])
            .sort(([keyA, a], [keyB, b]) => sign * (compareKeys(keyA, keyB) || compareTexts(a.id, b.id)))
            .map(([, one]) => one);
    }

    function getKey(column, one) {
        if (column === 'spent') {
            return getSortKey(one, column, getNow());
        }
        if (!keys.has(column)) {
            keys.set(column, new WeakMap());
        }
        const known = keys.get(column);
        if (!known.has(one)) {
            known.set(one, column === URGENCY ? getUrgencyKey(one) : getSortKey(one, column));
        }
        return known.get(one);
    }

    // A press on a heading sorts by it, then the other way round, then as at first.
    function render() {
        const {ordering} = address.query;
        for (const heading of head.querySelectorAll('[data-column]')) {
            const {column, first = ''} = heading.dataset;
            const second = first ? '' : '-';
            const isSorted = Boolean(ordering) && getColumn(ordering) === column;
            const next = !isSorted ? first + column : ordering === first + column ? second + column : '';
            set(heading, 'ariaSort', !isSorted ? 'none' : ordering.startsWith('-') ? 'descending' : 'ascending');
            heading.querySelector('a').href = address.makeLink({ordering: next, page: 1});
        }
    }

    return {sort, render};
}

function getColumn(ordering) {
    return ordering.replace(/^-/, '');
}
