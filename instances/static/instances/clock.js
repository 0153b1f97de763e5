// The server's time. The browser's clock may be wrong and may jump, so ages are computed from the Date header of the
// server's answers plus the time that has passed on the browser's monotonic clock.

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
    // The header was written between the request and now: the offset lies between these two values.
    const [least, most] = [said - performance.now(), said + PRECISION_MS - sentAt];
    offset = offset === null ? least : Math.min(Math.max(offset, least), Math.max(least, most));
}

// Returns null before the first answer.
export function getNow() {
    return offset === null ? null : performance.now() + offset;
}

// Returns whether the computer slept or its clock was set. The monotonic clock may stop while a computer sleeps, so the
// server's time is unknown until its next answer.
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

const MORNING_HOUR = 9;

// Returns 09:00 of tomorrow, or of a later day, in the zone of the browser, which the service doesn't know, as the API writes times.
export function getMorning(days = 1) {
    const morning = new Date();
    morning.setDate(morning.getDate() + days);
    morning.setHours(MORNING_HOUR, 0, 0, 0);
    return formatTime(morning);
}

export function formatTime(date) {
    return date.toISOString().replace(/\.\d+Z$/, 'Z');
}
