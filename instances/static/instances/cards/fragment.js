// Keeps charts fresh: the server draws them, and an element with data-fragment names the address that has its
// content. With data-fragment-first it is read at once: the server doesn't wait for it.

const REFRESH_MS = 300_000;

// Reads every fragment of the page again, each 5 minutes while the page is visible. A 304 changes nothing.
export function createFragments() {
    const elements = [...document.querySelectorAll('[data-fragment]')];
    const etags = new WeakMap();
    let running = new Set(); // the ids of operations

    async function read(element) {
        const headers = etags.has(element) ? {'If-None-Match': etags.get(element)} : {};
        try {
            const answer = await fetch(element.dataset.fragment, {headers, cache: 'no-store'});
            if (answer.status === 200 && !answer.redirected) {
                etags.set(element, answer.headers.get('ETag') || '');
                const drawn = new DOMParser().parseFromString(await answer.text(), 'text/html');
                element.replaceChildren(...drawn.body.childNodes);
            }
        } catch {
            // The old chart stays; the page says elsewhere that the service can't be reached.
        }
    }

    function refresh() {
        return document.hidden ? null : Promise.all(elements.map(read));
    }

    for (const element of elements.filter(one => 'fragmentFirst' in one.dataset)) {
        read(element);
    }
    // An operation that has ended shows in the charts.
    function follow(operations) {
        const now = new Set((operations || []).filter(one => one.finishedAt === null).map(one => one.id));
        if ([...running].some(id => !now.has(id))) {
            refresh();
        }
        running = now;
    }

    if (elements.length) {
        setInterval(refresh, REFRESH_MS);
    }
    return {follow};
}
