// Live updates: when the page reads the service again, and the line that says so.

import {getNow, hasJumped} from './clock.js';
import {setText} from './elements.js';
import {renew} from './session.js';

const REST_SECONDS = 30;
const MOVING_SECONDS = 3;
// After a failure. Each page adds up to a second at random, to spread their requests.
const TROUBLE_SECONDS = 3;

// `read` requests the state of the service and shows it. `isMoving` and `hasTrouble` decide when to read again. `onTick`
// is called every second.
export function createLive({read, isMoving, hasTrouble, onTick}) {
    const line = document.getElementById('next-refresh');
    let reading = null;
    let timer = 0;
    let nextAt = 0; // by the monotonic clock
    let isPaused = false;

    function refresh() {
        clearTimeout(timer);
        reading ||= read().finally(() => {
            reading = null;
            schedule();
        });
        tick();
        return reading;
    }

    // As `refresh`, but never with an answer that was requested before.
    async function refreshAnew() {
        await reading;
        await refresh();
    }

    function schedule() {
        clearTimeout(timer);
        if (!isPaused && !document.hidden) {
            const seconds = hasTrouble() || getNow() === null ? TROUBLE_SECONDS + Math.random()
                : isMoving() ? MOVING_SECONDS : REST_SECONDS;
            nextAt = performance.now() + seconds * 1000;
            timer = setTimeout(refresh, seconds * 1000);
        }
        tick();
    }

    function tick() {
        if (hasJumped() && !document.hidden) {
            // The answer contains the server's time.
            isPaused ? renew() : refresh();
        }
        const seconds = Math.max(0, Math.ceil((nextAt - performance.now()) / 1000));
        setText(line, isPaused ? 'Refresh paused' : reading ? 'Refreshing…' : `Next refresh in ${seconds} s`);
        onTick();
    }

    function togglePause(button) {
        isPaused = !isPaused;
        button.setAttribute('aria-pressed', String(isPaused));
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
