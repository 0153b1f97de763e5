// Which instances need attention, and why. The rules are those of attention.py: a page looks the same with and without
// its script. Which instances are idle comes from the findings of policies.

import {getNow} from '../clock.js';

export const REASONS = ['error', 'idle', 'longRunning', 'spotReclaim'];
const DAY_MS = 86_400_000;
const longestMs = DAY_MS * Number(document.getElementById('cards').dataset.longRunningDays);

let idle = new Set();

const rules = {
    error: one => one.statusError !== null,
    longRunning: one => longestMs > 0 && one.group === 'running' && !one.prepaid && one.lastStartedAt !== null
        && getNow() - new Date(one.lastStartedAt) > longestMs,
    spotReclaim: one => ![null, 'running'].includes(one.spotStatus),
    idle: one => idle.has(one.id),
};

// Takes the open findings of policies, and the ids of idle instances whose findings are not among them.
export function takeIdle(findings, more) {
    const found = findings.filter(one => one.rule === 'idle' && ['warned', 'due'].includes(one.state));
    idle = new Set([...found.map(one => one.instanceId), ...more]);
}

export function needsAttention(one, reason) {
    return one.group !== 'gone' && rules[reason](one);
}
