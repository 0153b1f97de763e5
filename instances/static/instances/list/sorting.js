// The order of the rows, and the headings that change it.

import {compareKeys, compareTexts, getNaturalKey} from '../order.js';

const DEFAULT_ORDERING = '-createdAt';

export function createSorting({head, address}) {
    function getOrdering() {
        const ordering = address.query.ordering || DEFAULT_ORDERING;
        return {name: ordering.replace(/^-/, ''), isDescending: ordering.startsWith('-')};
    }

    // Sorts in place.
    function sort(found) {
        const {name, isDescending} = getOrdering();
        const keys = new Map(found.map(one => [one.id, getSortKey(one[name])]));
        return found.sort((a, b) => {
            const order = compareKeys(keys.get(a.id), keys.get(b.id)) || compareTexts(a.id, b.id);
            return isDescending ? -order : order;
        });
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
function getSortKey(value) {
    return typeof value === 'string' ? getNaturalKey(value) : [];
}
