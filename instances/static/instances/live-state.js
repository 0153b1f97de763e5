// The live state in the bar: a word for how fresh the page is, and the time that belongs to it. The server's HTML says
// the same (pages/bar.py).

import {set, setText} from './elements.js';
import {LoggedOut} from './service.js';
import {sayAge, sayMoment, sayStart} from './words.js';

// The word for a failed synchronization, by the code of the error.
const FAILURES = {
    NOVITA_UNAVAILABLE: 'Novita unreachable',
    NOVITA_TIMEOUT: 'Novita unreachable',
    NOVITA_REJECTED_KEY: 'API key rejected',
};

export function createLiveState({inventory, overview}) {
    const element = document.getElementById('live');
    const word = document.getElementById('live-word');
    const detail = document.getElementById('live-detail');

    function tick(isPaused) {
        if (overview.value === null) {
            return;
        }
        const [kind, words, rest] = find(isPaused);
        set(element.dataset, 'kind', kind);
        setText(word, words);
        setText(detail, rest);
        set(element, 'title', [
            inventory.asOf && `Last synchronization: ${sayMoment(inventory.asOf)}.`,
            document.getElementById('next-refresh').textContent,
        ].filter(Boolean).join(' '));
    }

    // A paused page shows what was true when it was paused, so it claims nothing else.
    function find(isPaused) {
        const {asOf, failure} = inventory;
        const {services, sync} = overview.value.health;
        const synced = asOf ? ` · synced ${sayAge(asOf)}` : '';
        if (isPaused) {
            return ['paused', 'Paused', synced];
        }
        if (overview.isReachable && services.redis === 'down') {
            return ['trouble', 'Redis unreachable', synced];
        }
        if (failure) {
            return ['trouble', failure.error instanceof LoggedOut ? 'Logged out' : 'Not refreshed', failure.since ? ` since ${sayStart(failure.since)}` : ''];
        }
        if (sync.lastError) {
            return ['trouble', FAILURES[sync.lastErrorCode] ?? 'Synchronization failing', synced];
        }
        if (!inventory.hasCopy) {
            return ['waiting', inventory.isSyncing ? 'Synchronizing…' : 'Not synchronized', ''];
        }
        return sync.isStale ? ['stale', 'Stale', ` since ${sayStart(asOf)}`] : ['live', 'Live', synced];
    }

    return {tick};
}
