// The order of names and of instances, and which texts count as equal. The rules are those of queries.py: a page looks
// the same with and without its script.

import {needsAttention} from './cards/attention.js';

export const URGENCY = 'attention';
const RANKS = {error: 0, starting: 1, stopping: 1, other: 2, running: 3, stopped: 4, gone: 5};
const ASCII = /^[\0-\x7f]*$/;

export function fold(text) {
    // Most texts, and there are ten of each instance.
    return ASCII.test(text) ? text.toLowerCase() : text.normalize('NFKC').toUpperCase().toLowerCase().normalize('NFKC');
}

// Returns the key that sorts an instance by a column; an unknown value comes before all others.
export function getSortKey(one, column, now) {
    const value = {
        upFor: () => -findStart(one),
        spent: () => findSpent(one, now),
    }[column]?.() ?? one[column];
    return typeof value === 'string' ? getNaturalKey(value) : typeof value === 'number' && !Number.isNaN(value) ? [value] : [];
}

// Sorts first what may need somebody. Among running instances an unknown price comes first.
export function getUrgencyKey(one) {
    const rank = RANKS[needsAttention(one, 'error') ? 'error' : one.group] ?? RANKS.other;
    const cost = rank === RANKS.running ? -(one.costPerHour ?? Infinity) : 0;
    return [rank, cost, ...getNaturalKey(one.name)];
}

// Since when a running instance runs, in milliseconds; NaN when it isn't running, or that isn't known.
export function findStart(one) {
    return one.group === 'running' ? Date.parse(one.lastStartedAt) : NaN;
}

// About how many USD a running instance has cost since its start; NaN when that isn't known.
export function findSpent(one, now) {
    return one.prepaid || one.pricePerHour === null || now === null ? NaN
        : Math.max(0, now - findStart(one)) / 3_600_000 * one.pricePerHour;
}

// Words and the numbers between them; a number as its length and its digits, which puts 2 before 10.
export function getNaturalKey(text) {
    const words = fold(text).split(/([0-9]+)/);
    const key = [];
    for (let at = 0; at + 1 < words.length; at += 2) {
        const number = words[at + 1].replace(/^0+/, '');
        key.push(words[at], number.length, number);
    }
    key.push(words.at(-1), -1, '');
    return key;
}

export function compareKeys(a, b) {
    for (let at = 0; at < Math.min(a.length, b.length); at += 1) {
        const order = typeof a[at] === 'number' ? a[at] - b[at] : compareTexts(a[at], b[at]);
        if (order) {
            return order;
        }
    }
    return a.length - b.length;
}

// Returns a sorted copy; equal names are sorted by id.
export function sortByName(listed, getName, getId) {
    const keys = new Map(listed.map(one => [one, getNaturalKey(getName(one))]));
    return [...listed].sort((a, b) => compareKeys(keys.get(a), keys.get(b)) || compareTexts(getId(a), getId(b)));
}

// Compares characters; < would compare halves of some.
export function compareTexts(a, b) {
    let at = 0;
    while (at < a.length && at < b.length && a[at] === b[at]) {
        at += 1;
    }
    // The first halves are equal, so a second half belongs to the character that starts before it.
    const isSecondHalf = at > 0 && /[\ud800-\udbff]/.test(a[at - 1]);
    const from = isSecondHalf ? at - 1 : at;
    return (a.codePointAt(from) ?? -1) - (b.codePointAt(from) ?? -1);
}
