// Requests to the service: each with a timeout, and each failure in words.

import {learn} from './clock.js';
import {locate} from './root.js';

const TIMEOUT_MS = 20000;
// How long the message of an outage stays when no refresh has met the outage.
const SHORT_OUTAGE_MS = 10000;

// The service refused: the action did not begin. Any other error leaves that open.
export class Refusal extends Error {}

export class LoggedOut extends Refusal {
    constructor() {
        super('You are logged out. Log in again.');
    }
}

const PARTS = {CACHE_UNAVAILABLE: 'redis', DATABASE_UNAVAILABLE: 'database'};

// A failure that ends when a part of the service is back: `part` as /health names it, '' for the service itself.
export class Outage extends Error {
    constructor(words, part) {
        super(words);
        this.part = part;
        this.at = performance.now();
    }
}

// `services` is what /health says of each part; `hasFailed` whether a refresh has met the outage.
export function isOver(error, services, hasFailed) {
    return error instanceof Outage && (!error.part || services[error.part] === 'up')
        && (hasFailed || performance.now() - error.at > SHORT_OUTAGE_MS);
}

export function makeFailure(words, code) {
    const part = code === 'SHUTTING_DOWN' ? '' : code?.startsWith('NOVITA_') ? 'novita' : PARTS[code];
    return part === undefined ? new Error(words) : new Outage(words, part);
}

// `path` begins at the panel.
export async function request(path, options, timeout) {
    const sentAt = performance.now();
    const answer = await fetch(locate(path), {
        cache: 'no-store',
        credentials: 'same-origin',
        signal: AbortSignal.timeout(timeout || TIMEOUT_MS),
        ...options,
        headers: {Accept: 'application/json', ...options?.headers},
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
        answer = await request(path);
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
        return 'The service did not answer in time.';
    }
    return error instanceof TypeError || error instanceof SyntaxError ? "The service can't be reached." : error.message;
}
