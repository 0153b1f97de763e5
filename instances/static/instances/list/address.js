// The page's address: it holds search, filters, order and page number, for links and for the browser's Back button.

import {REASONS} from '../cards/attention.js';

// Values other than `groups` and `columns` count as absent, as in the server's view.
export function createAddress({groups, columns, onChange, onStep}) {
    let query = readQuery();

    function readQuery() {
        const given = new URLSearchParams(location.search);
        const page = Number(given.get('page'));
        const group = given.get('group') || '';
        const ordering = given.get('ordering') || '';
        const attention = given.get('attention') || '';
        return {
            search: given.get('search') || '',
            group: groups.includes(group) ? group : '',
            region: given.get('region') || '',
            owner: given.get('owner') || '',
            project: given.get('project') || '',
            attention: REASONS.includes(attention) ? attention : '',
            instance: given.get('instance') || '',
            ordering: columns.includes(ordering.replace(/^-/, '')) ? ordering : '',
            page: Number.isInteger(page) && page > 0 ? page : 1,
        };
    }

    function makeLink(changes) {
        const parameters = new URLSearchParams();
        for (const [name, value] of Object.entries({...query, ...changes})) {
            if (value && !(name === 'page' && value === 1)) {
                parameters.set(name, value);
            }
        }
        return `?${parameters}`;
    }

    // With `isStep` the Back button returns to the state before.
    function change(changes, {isStep}) {
        const link = makeLink(changes);
        history[isStep ? 'pushState' : 'replaceState'](null, '', link === '?' ? location.pathname : link);
        query = readQuery();
        onChange();
    }

    addEventListener('popstate', () => {
        query = readQuery();
        onStep();
    });

    return {
        get query() {
            return query;
        },
        makeLink,
        change,
    };
}
