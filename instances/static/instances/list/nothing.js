// The text in place of an empty table: the reason, and a button that helps.

import {make} from '../elements.js';

export function createNothing({inventory}) {
    const element = document.getElementById('nothing');

    function render(found) {
        const {hasCopy, instances, isSyncing} = inventory;
        const kind = found.length ? '' : !hasCopy ? 'emptied' : !instances.length ? 'none' : 'no-match';
        const look = kind === 'emptied' ? `${kind} ${isSyncing}` : kind;
        if (element.dataset.shown === look) {
            return;
        }
        element.dataset.shown = look;
        element.replaceChildren();
        if (!kind) {
            return;
        }
        const words = document.createElement('p');
        words.textContent = {
            emptied: isSyncing ? 'The cache is empty. Synchronizing…' : 'The cache is empty. A synchronization fills it.',
            none: 'There are no instances in the account.',
            'no-match': 'No instances match.',
        }[kind];
        element.append(words);
        const cure = {emptied: ['sync', 'Sync now'], 'no-match': ['clear-filters', 'Clear filters']}[kind];
        if (cure) {
            const button = make('button', {type: 'button', 'data-needs': 'operator'});
            [button.dataset.do, button.textContent] = cure;
            element.append(button);
        }
    }

    return {render};
}
