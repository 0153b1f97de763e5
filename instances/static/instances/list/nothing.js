// The text in place of an empty table: the reason, and one button that helps.

import {make} from '../elements.js';

const SYNC = {do: 'sync', words: 'Sync now', needs: 'operator'};
const REFRESH = {do: 'refresh', words: 'Refresh data'};
const KINDS = {
    unread: {words: 'No instances can be shown. The page tries again by itself.', cure: REFRESH},
    'no-redis': {
        words: "Redis can't be reached, so no instances can be shown. The service reconnects automatically.",
        cure: REFRESH,
    },
    first: {words: 'Never synchronized with Novita.ai.', cure: SYNC},
    syncing: {words: 'Synchronizing with Novita.ai…'},
    emptied: {words: 'The cache is empty. A synchronization fills it.', cure: SYNC},
    none: {words: 'There are no instances in the account.', cure: SYNC},
    'no-match': {words: 'No instances match.', cure: {do: 'clear-filters', words: 'Clear filters'}},
};

export function createNothing({table, inventory}) {
    const element = document.getElementById('nothing');

    // `found` are the matches; null while there is no list. `redis` is its state by /health.
    function render(found, redis) {
        const kind = findKind(found, redis);
        const role = document.getElementById('dashboard').dataset.role;
        const look = `${kind} ${role}`;
        if (element.dataset.shown === look) {
            return;
        }
        element.dataset.shown = look;
        table.hidden = Boolean(kind);
        element.replaceChildren();
        if (kind) {
            const {words, cure} = KINDS[kind];
            const own = cure?.needs && role === 'viewer' ? REFRESH : cure;
            element.append(make('p', {}, words), ...own ? [make('button', {type: 'button', 'data-do': own.do}, own.words)] : []);
        }
    }

    function findKind(found, redis) {
        const {asOf, hasCopy, instances, isSyncing} = inventory;
        if (found === null) {
            return redis === 'down' ? 'no-redis' : inventory.failure ? 'unread' : '';
        }
        return found.length ? '' : !hasCopy ? isSyncing ? 'syncing' : asOf ? 'emptied' : 'first' : instances.length ? 'no-match' : 'none';
    }

    return {render};
}
