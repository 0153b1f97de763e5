// An operation in words: its live counts and times. The server words the result and each target.

import {getNow} from '../clock.js';
import {capitalize, sayAge, sayClock, sayCost, sayNumber} from '../words.js';
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

// The strip's heading: how many a running operation is about, or which operation has ended.
export function sayHeading(operation) {
    return isRunning(operation) ? `${sayDoing(operation.kind)} ${sayNumber(getTotal(operation))}` : sayTitle(operation.kind, operation.isWholeAccount);
}

export function sayPageTitle(operation) {
    return isRunning(operation) ? `${sayDoing(operation.kind)} ${sayNumber(operation.counts.confirmed)}/${sayNumber(getTotal(operation))}` : '';
}

// Novita, or a worker, has not answered for so long: two rounds of an operation.
const SILENT_MS = 20000;

// Says since when nothing has been read of a running operation's instances; '' when that is not long.
function saySilence({targets = []}) {
    const now = getNow();
    const last = targets.map(({readAt}) => readAt ?? '').sort().at(-1);
    return last && now !== null && now - Date.parse(last) > SILENT_MS ? `last read at ${sayClock(last)}` : '';
}

// The counts of a running operation: what needs a person comes first.
export function sayProgress(operation) {
    const {kind, state, counts} = operation;
    const {doing, done} = WORDS[kind];
    const isCancelled = state === 'cancelled';
    const parts = [
        [counts.failed, 'failed so far'],
        [counts.unknown, 'unknown'],
        [counts.confirmed, done],
        [counts.requested, doing.toLowerCase()],
        [counts.pending, isCancelled ? 'not requested' : 'queued'],
        [counts.skipped, 'skipped'],
    ];
    const words = parts.filter(([number, word]) => number || word === done).map(([number, word]) => `${sayNumber(number)} ${word}`);
    return `${isCancelled ? 'Cancelled: ' : ''}${[...words, saySilence(operation)].filter(Boolean).join(' · ')}`;
}

// How many of an ended operation are done, and how many are not: the server's sentence says how those are.
export function sayFigures(operation) {
    const {counts, kind} = operation;
    const {done} = WORDS[kind];
    const already = countAlready(operation);
    return `${capitalize([
        [counts.confirmed - already, done],
        [already, `already ${done}`],
        [getTotal(operation) - counts.confirmed, `not ${done}`],
        [counts.skipped, 'skipped'],
    ].filter(([number], index) => number || index === 0).map(([number, word]) => `${sayNumber(number)} ${word}`).join(', '))}.`;
}

// The server's sentence; when all are confirmed, with the time of the last confirmation, and with what is saved.
export function sayResult({success, result, savesPerHour, targets}) {
    const times = targets.map(one => one.confirmedAt).filter(Boolean).sort();
    const verified = success && times.length ? ` Verified at ${sayClock(times.at(-1))}.` : '';
    return `${result}${verified}${success && savesPerHour ? ` Saves ${sayCost(savesPerHour)}.` : ''}`;
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
