// Which instances need attention, and why. The rules are those of attention.py: a page looks the same with and without
// its script.

import {getNow} from '../clock.js';

export const REASONS = ['error', 'longRunning', 'spotReclaim'];
const DAY_MS = 86_400_000;
const longestMs = DAY_MS * Number(document.getElementById('cards').dataset.longRunningDays);

const rules = {
    error: one => one.statusError !== null,
    longRunning: one => longestMs > 0 && one.group === 'running' && !one.prepaid && one.lastStartedAt !== null
        && getNow() - new Date(one.lastStartedAt) > longestMs,
    spotReclaim: one => ![null, 'running'].includes(one.spotStatus),
};

export function needsAttention(one, reason) {
    return one.group !== 'gone' && rules[reason](one);
}
