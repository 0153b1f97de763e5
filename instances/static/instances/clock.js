// The server's time. The browser's own clock may be wrong and may jump; ages are computed from what the server's
// answers say, carried on by the browser's monotonic clock.

const JUMP_MS = 5000;
// The header Date has whole seconds.
const PRECISION_MS = 1000;

let offset = null; // the server's time less the monotonic clock's; null: not known
let jumpedAt = 0; // by the monotonic clock
let difference = Date.now() - performance.now();

export function learn(date, sentAt) {
    const said = Date.parse(date);
    if (Number.isNaN(said) || sentAt < jumpedAt) {
        return;
    }
    // The header was written between the request and now, so that the offset lies between these two.
    const [least, most] = [said - performance.now(), said + PRECISION_MS - sentAt];
    offset = offset === null ? least : Math.min(Math.max(offset, least), Math.max(least, most));
}

// Returns null until the server has said it.
export function getNow() {
    return offset === null ? null : performance.now() + offset;
}

// Returns whether the computer slept or its clock was set. The monotonic clock may stand while a computer sleeps, so
// that the server's time is not known until its next answer.
export function hasJumped() {
    const before = difference;
    difference = Date.now() - performance.now();
    if (Math.abs(difference - before) < JUMP_MS) {
        return false;
    }
    offset = null;
    jumpedAt = performance.now();
    return true;
}
