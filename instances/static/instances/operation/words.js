// An operation in words: its live counts and times. The server words the result and each target.

import {getNow} from '../clock.js';
import {capitalize, count, sayAge, sayClock} from '../words.js';
import {countAlready, getTotal, isRunning} from './states.js';

const WORDS = {
    stop: {doing: 'Stopping', done: 'stopped'},
    start: {doing: 'Starting', done: 'running'},
    restart: {doing: 'Restarting', done: 'restarted'},
};

export function sayDoing(kind) {
    return WORDS[kind].doing;
}

export function sayDone(kind) {
    return WORDS[kind].done;
}

export function sayTitle(kind, isWholeAccount) {
    return isWholeAccount ? 'Stop all' : `${capitalize(kind)} of selected instances`;
}

export function sayPageTitle(operation) {
    return isRunning(operation) ? `${sayDoing(operation.kind)} ${operation.counts.confirmed}/${getTotal(operation)}` : '';
}

export function sayProgress(operation) {
    const {kind, state} = operation;
    const start = state === 'cancelled' ? `Cancelled; no more ${kind}s will be requested. ` : '';
    const total = getTotal(operation);
    const open = total - countAlready(operation, 'confirmed');
    const some = open && open < total ? `${open} of ` : '';
    return `${start}${sayDoing(kind)} ${some}${count(total)}: ${sayCounts(operation)}.`;
}

// How many of an ended operation are done, and how many are not: the server's sentence says how those are.
export function sayFigures(operation) {
    const {counts, kind} = operation;
    const {done} = WORDS[kind];
    const already = countAlready(operation, 'confirmed');
    return `${capitalize(joinCounts([
        [counts.confirmed - already, done],
        [already, `already ${done}`],
        [getTotal(operation) - counts.confirmed, `not ${done}`],
        [counts.skipped, 'skipped'],
    ]))}.`;
}

function sayCounts(operation) {
    const {counts, kind, state} = operation;
    const {doing, done} = WORDS[kind];
    const [already, onTheWay] = [countAlready(operation, 'confirmed'), countAlready(operation, 'requested')];
    return joinCounts([
        [counts.confirmed - already, done],
        [already, `already ${done}`],
        [counts.requested - onTheWay, doing.toLowerCase()],
        [onTheWay, `already ${doing.toLowerCase()}`],
        [counts.pending, state === 'cancelled' ? 'not requested' : 'queued'],
        [counts.failed, 'failed so far'],
        [counts.unknown, 'unknown'],
        [counts.skipped, 'skipped'],
    ]);
}

function joinCounts(parts) {
    return parts.filter(([number], index) => number || index === 0).map(([number, word]) => `${number} ${word}`).join(', ');
}

// The server's sentence, with the time of the last confirmation when all are confirmed.
export function sayResult(operation) {
    const times = operation.targets.map(one => one.confirmedAt).filter(Boolean).sort();
    return operation.success && times.length ? `${operation.result} Verified at ${sayClock(times.at(-1))}.` : operation.result;
}

export function sayWhen(operation) {
    return isRunning(operation) ? `, ${sayAge(operation.createdAt)}. ${sayDeadline(operation)}${operation.deadlineAt ? '.' : ''}`
        : `, ended ${sayAge(operation.finishedAt)}.`;
}

export function sayDeadline({deadlineAt}) {
    if (!deadlineAt) {
        return '';
    }
    const isOverdue = getNow() !== null && getNow() > Date.parse(deadlineAt);
    return isOverdue ? `The result has been overdue since ${sayClock(deadlineAt)}` : `Result by ${sayClock(deadlineAt)}`;
}
