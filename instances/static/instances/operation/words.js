// An operation in words.

import {getNow} from '../clock.js';
import {capitalize, count, sayAge, sayClock} from '../words.js';
import {countAlready, getTotal, isRunning} from './states.js';

const WORDS = {
    stop: {doing: 'Stopping', done: 'stopped', undone: 'still runs', undoneMany: 'still run'},
    start: {doing: 'Starting', done: 'running', undone: 'does not run', undoneMany: "don't run"},
    restart: {
        doing: 'Restarting', done: 'restarted', undone: 'has not restarted', undoneMany: 'have not restarted',
    },
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
    const {doing} = WORDS[operation.kind];
    const start = operation.state === 'cancelled' ? `Cancelled, nobody else is asked. ${doing}` : doing;
    const total = getTotal(operation);
    const meant = total - countAlready(operation, 'confirmed');
    return `${start} ${meant && meant < total ? `${meant} of ` : ''}${count(total)}: ${sayCounts(operation)}.`;
}

export function sayFigures(operation) {
    return `${capitalize(sayCounts(operation))}.`;
}

function sayCounts(operation) {
    const {counts, kind, state} = operation;
    const {done, undone, undoneMany} = WORDS[kind];
    const isOpen = isRunning(operation);
    const [already, onTheWay] = [countAlready(operation, 'confirmed'), countAlready(operation, 'requested')];
    const words = [
        [counts.confirmed - already, isOpen ? `confirmed ${done}` : `seen ${done}`],
        [already, `${done} already`],
        [onTheWay, 'on the way already'],
        [counts.stillRunning, counts.stillRunning === 1 ? undone : undoneMany],
        [counts.requested - onTheWay, isOpen ? 'asked' : `asked and not seen ${done}`],
        [counts.pending, isOpen && state !== 'cancelled' ? 'to be asked' : 'not asked'],
        [counts.failed, isOpen ? 'failed so far' : 'failed'],
        [counts.unknown, 'not known'],
        [counts.skipped, 'skipped'],
    ];
    return words.filter(([number], index) => number || index === 0).map(([number, word]) => `${number} ${word}`).join(', ');
}

export function sayResult(operation) {
    const total = getTotal(operation);
    const {done} = WORDS[operation.kind];
    if (!operation.success) {
        return operation.result || (operation.state === 'cancelled' ? 'Cancelled.' : `Not all are ${done}.`);
    }
    if (!total) {
        return operation.result || 'There was nothing to do.';
    }
    const times = operation.targets.map(one => one.confirmedAt).filter(Boolean).sort();
    const seen = times.length ? `, seen at ${sayClock(times[times.length - 1])}` : '';
    const already = countAlready(operation, 'confirmed');
    const before = already && already < total ? ` ${already} ${already === 1 ? 'was' : 'were'} ${done} already.` : '';
    return total === 1 ? `The one instance is ${done}${seen}.` : `All ${total} are ${done}${seen}.${before}`;
}

export function sayTarget(one, operation) {
    const {done, undone} = WORDS[operation.kind];
    const isOpen = isRunning(operation);
    return {
        pending: isOpen && operation.state !== 'cancelled' ? 'to be asked' : 'never asked',
        requested: `asked${one.requestedAt ? ` at ${sayClock(one.requestedAt)}` : ''}, not yet seen ${done}`,
        confirmed: `${done}${one.confirmedAt ? `, seen at ${sayClock(one.confirmedAt)}` : ''}`,
        stillRunning: `${undone}${one.readAt ? `, seen ${one.status} at ${sayClock(one.readAt)}` : ''}`,
        failed: isOpen ? 'failed so far' : 'failed',
        skipped: 'skipped',
        unknown: 'not known',
    }[one.state] || one.state;
}

export function sayWhen(operation) {
    return isRunning(operation) ? `, ${sayAge(operation.createdAt)}.${sayDeadline(operation)}`
        : `, ended ${sayAge(operation.finishedAt)}.`;
}

function sayDeadline({deadlineAt}) {
    if (!deadlineAt) {
        return '';
    }
    const isOverdue = getNow() !== null && getNow() > Date.parse(deadlineAt);
    return ` The verdict ${isOverdue ? 'has been overdue since' : 'is due by'} ${sayClock(deadlineAt)}.`;
}
