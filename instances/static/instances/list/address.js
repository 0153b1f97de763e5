// The address: search, filters, order and page stand in it, so that a link carries them and the browser's Back steps
// through them.

// `groups` and `columns` are the values that make sense; any other counts as absent, as it does for the server.
export function createAddress({groups, columns, onChange, onStep}) {
    let query = readQuery();

    function readQuery() {
        const given = new URLSearchParams(location.search);
        const page = Number(given.get('page'));
        const group = given.get('group') || '';
        const ordering = given.get('ordering') || '';
        return {
            search: given.get('search') || '',
            group: groups.includes(group) ? group : '',
            region: given.get('region') || '',
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

    // A step is one that Back returns from.
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
