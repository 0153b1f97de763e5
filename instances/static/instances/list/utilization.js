// How busy the instance in the drawer was in the last hour: lines that the server draws.

import {make} from '../elements.js';
import {locate} from '../root.js';
import {makeSection} from './facts.js';

// Novita's metrics have a sample a minute.
const READ_AGAIN_MS = 20000;

export function createUtilization() {
    const content = make('div', {class: 'utilization'});
    const section = makeSection('Utilization', content);
    let id = '';
    let readAt = -Infinity;

    function begin(newId) {
        id = newId;
        readAt = -Infinity;
        content.replaceChildren();
    }

    function update(one) {
        section.hidden = one.group !== 'running';
        if (!section.hidden && performance.now() - readAt > READ_AGAIN_MS) {
            readAt = performance.now();
            read(id);
        }
    }

    // Drops the answer when another instance is shown by then.
    async function read(wanted) {
        try {
            const answer = await fetch(locate(`/utilization/${encodeURIComponent(wanted)}/`), {cache: 'no-store'});
            if (wanted === id && answer.status === 200 && !answer.redirected) {
                const drawn = new DOMParser().parseFromString(await answer.text(), 'text/html');
                content.replaceChildren(...drawn.body.childNodes);
            }
        } catch {
            // The old lines stay; the page says elsewhere that the service can't be reached.
        }
    }

    return {section, begin, update};
}
