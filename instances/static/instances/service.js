// Asking the service: with a timeout each time, and a failure in words.

import {learn} from './clock.js';

const TIMEOUT_MS = 20000;

// The service's own no; what was asked for did not begin. Any other error leaves that open.
export class Refusal extends Error {}

export class LoggedOut extends Refusal {
    constructor() {
        super('You are logged out. Log in again.');
    }
}

const PARTS = {CACHE_UNAVAILABLE: 'redis', DATABASE_UNAVAILABLE: 'database'};

// A failure that lasts no longer than a part of the service is away: `part` as /health names it, '' for the service.
export class Outage extends Error {
    constructor(words, part) {
        super(words);
        this.part = part;
        this.at = performance.now();
    }
}

export function makeFailure(words, code) {
    const part = code === 'SHUTTING_DOWN' ? '' : code && code.startsWith('NOVITA_') ? 'novita' : PARTS[code];
    return part === undefined ? new Error(words) : new Outage(words, part);
}

export async function ask(path, options, timeout) {
    const sentAt = performance.now();
    const answer = await fetch(path, {
        cache: 'no-store',
        credentials: 'same-origin',
        signal: AbortSignal.timeout(timeout || TIMEOUT_MS),
        ...options,
        headers: {Accept: 'application/json', ...(options && options.headers)},
    });
    learn(answer.headers.get('Date'), sentAt);
    if (answer.status === 401) {
        throw new LoggedOut();
    }
    return answer;
}

export async function read(path) {
    let answer, result;
    try {
        answer = await ask(path);
        result = await answer.json();
    } catch (error) {
        throw new Error(nameFailure(error));
    }
    if (!answer.ok) {
        throw new Error(result.message);
    }
    return result;
}

export function nameFailure(error) {
    if (error.name === 'TimeoutError') {
        return 'The service does not answer in time.';
    }
    return error instanceof TypeError || error instanceof SyntaxError ? "The service can't be reached." : error.message;
}
