// The page's address: it holds search, filters, order, columns and page number, for links and for the Back button.

// A choice that the page doesn't offer counts as absent, as in the server's view. `choices` maps parameters to theirs.
const TEXTS = ['search', 'gpu', 'region', 'owner', 'project'];

export function createAddress({choices, orderings, columns, onChange, onStep}) {
    let query = readQuery();

    function readQuery() {
        const given = new URLSearchParams(location.search);
        const read = name => given.get(name) || '';
        const page = Number(given.get('page'));
        const ordering = read('ordering');
        return {
            instance: read('instance'),
            ...Object.fromEntries(TEXTS.map(name => [name, read(name)])),
            ...Object.fromEntries(Object.entries(choices).map(([name, values]) => [name, values.includes(read(name)) ? read(name) : ''])),
            ordering: orderings.includes(ordering.replace(/^-/, '')) ? ordering : '',
            columns: read('columns').split(',').filter(name => columns.includes(name)).join(','),
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
        show(makeLink(changes), isStep);
        onChange();
    }

    function show(link, isStep) {
        history[isStep ? 'pushState' : 'replaceState'](history.state, '', link === '?' ? location.pathname : link);
        query = readQuery();
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
        // As a press on the link, without a request.
        follow(link) {
            show(link, true);
            onStep();
        },
    };
}
