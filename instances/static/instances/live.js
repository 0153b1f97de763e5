// Live updates: when the page reads the service again, and the line that says so.

import {getNow, hasJumped} from './clock.js';
import {setText} from './elements.js';
import {renew} from './session.js';

const REFRESH_SECONDS = 30;
// How soon the page shows what somebody else did: each look is one small request, answered by 304 at rest.
const LOOK_SECONDS = 3;
// While Novita is away: the service takes up to 2.5 s to notice that it is back, and 5 s is the promise.
const OUTAGE_LOOK_SECONDS = 2;
// After a failure. Each page adds up to a second at random, to spread their requests.
const TROUBLE_SECONDS = 3;

// `read(isWhole)` requests the state of the service and shows it: whole, or only if anything has changed. `hasTrouble`
// tells whether to read the whole again soon, `hasFailed` whether a look is of no use, and `isOutage` whether Novita is
// away. `onTick(isPaused)` is called every second.
export function createLive({read, hasTrouble, hasFailed, isOutage, onTick}) {
    const line = document.getElementById('next-refresh');
    let reading = null; // {isWhole, promise}
    let timer = 0;
    // Times by the monotonic clock.
    let readAt = 0;
    let refreshAt = 0;
    let isPaused = false;

    function begin(isWhole) {
        clearTimeout(timer);
        const mine = {isWhole};
        mine.promise = Promise.resolve(reading?.promise).then(() => {
            readAt = performance.now();
            return read(isWhole);
        }).finally(() => {
            if (isWhole || hasTrouble()) {
                refreshAt = performance.now() + 1000 * getPause();
            }
            if (reading === mine) {
                reading = null;
                schedule();
            }
        });
        reading = mine;
        tick();
        return mine.promise;
    }

    function getPause() {
        return hasTrouble() || getNow() === null ? TROUBLE_SECONDS + Math.random() : REFRESH_SECONDS;
    }

    function refresh() {
        return reading?.isWhole ? reading.promise : begin(true);
    }

    // As `refresh`, but never with an answer that was requested before.
    async function refreshAnew() {
        await reading?.promise;
        await refresh();
    }

    function schedule() {
        clearTimeout(timer);
        if (!isPaused && !document.hidden) {
            const lookAt = hasFailed() ? Infinity : readAt + 1000 * (isOutage() ? OUTAGE_LOOK_SECONDS : LOOK_SECONDS);
            timer = setTimeout(() => begin(lookAt >= refreshAt), Math.min(lookAt, refreshAt) - performance.now());
        }
        tick();
    }

    function tick() {
        if (hasJumped() && !document.hidden) {
            // The answer contains the server's time.
            isPaused ? renew() : refresh();
        }
        const seconds = Math.max(0, Math.ceil((refreshAt - performance.now()) / 1000));
        setText(line, isPaused ? 'Refresh paused' : reading?.isWhole ? 'Refreshing…' : `Next refresh in ${seconds} s`);
        onTick(isPaused);
    }

    function togglePause() {
        isPaused = !isPaused;
        for (const button of document.querySelectorAll('[data-do=pause]')) {
            const word = isPaused ? 'Resume' : 'Pause';
            setText(button, button.hasAttribute('aria-label') ? word : `${word} refresh`);
            button.ariaLabel &&= `${word} refresh`;
        }
        schedule();
    }

    function start() {
        document.addEventListener('visibilitychange', () => {
            if (document.hidden) {
                clearTimeout(timer);
            } else if (!isPaused) {
                refresh();
            }
        });
        setInterval(tick, 1000);
        refresh();
    }

    return {refresh, refreshAnew, start, actions: {pause: togglePause}};
}
