// Facts about an operation, from its states and counts.

// Targets for which the result is not confirmed.
const UNCONFIRMED = ['stillRunning', 'failed', 'unknown', 'requested', 'pending'];

// A cancelled operation ends only when the requests that were sent before are verified.
export function isRunning(operation) {
    return operation.finishedAt === null;
}

export function getTotal({counts}) {
    return Object.entries(counts).reduce((sum, [state, number]) => (state === 'skipped' ? sum : sum + number), 0);
}

export function listUnconfirmed(operation) {
    return operation.targets.filter(one => UNCONFIRMED.includes(one.state));
}

// Returns the instances that an ended stop has stopped: those that can be started again.
export function listStopped(operation) {
    return operation.kind === 'stop' && !isRunning(operation)
        ? operation.targets.filter(one => one.state === 'confirmed' && one.attempts) : [];
}

// Counts the targets that were in the wanted state already.
export function countAlready(operation) {
    return operation.targets.filter(one => one.state === 'confirmed' && !one.attempts).length;
}

export function getTone(operation) {
    const isCancelled = operation.state === 'cancelled' && !UNCONFIRMED.some(state => operation.counts[state]);
    return isRunning(operation) ? 'running' : isCancelled ? 'cancelled' : operation.success ? 'done' : 'trouble';
}

export function getName(target) {
    return target.name || target.instanceId;
}

export function findRepeatedNames(targets) {
    const names = targets.map(getName);
    const seen = new Set();
    return new Set(names.filter(name => seen.has(name) || !seen.add(name)));
}
