// Follows operations: starts one, chooses the one for the panel, and reads it until it has ended. Operations run in the
// service: each open dashboard shows them, and none is needed.

import {getNow} from '../clock.js';
import {Refusal, read} from '../service.js';
import {send} from '../session.js';
import {getRequest} from './plan.js';
import {getTone, getTotal, isRunning} from './states.js';

const POLL_SECONDS = 2;
const MAX_PAUSE_SECONDS = 10;
// How long to look for an operation whose start was not answered.
const SEARCH_SECONDS = 60;
// How long a success is shown. A failure stays until somebody dismisses it, or its retry supersedes it.
const SUCCESS_MS = 30 * 1000;

// `onChange` is called after each change, `onLaunch` when a start was sent. `refresh` reads the service again; the page
// then passes the newest operations to `takeList`.
export function createFollower({onChange, onLaunch, refresh}) {
    // A start without an answer, or one that was refused: {kind, ids, retryOf, words, error, isError, isAnswered,
    // searchUntil}.
    let launch = null;
    let shown = null; // the operation as the API tells it; without targets until it was read on its own
    let listedIds = null; // of the operations when they were last listed
    let idsBefore = null; // of the operations that were listed before the start was sent
    let others = []; // the other operations that run
    let pickedId = ''; // of the running operation that the visitor has chosen
    let failure = null; // {words, since, times} of the readings that failed
    let reading = null;
    let timer = 0;
    const warnings = new Map(); // id → the sentences that came with the answer to its start

    // --- Starting

    async function start({kind, ids, retryOf, restoreOf, reason}) {
        const mine = {
            kind, ids, retryOf, restoreOf, isError: false, isAnswered: false, searchUntil: getSearchEnd(),
            words: `Sending ${kind} requests…`,
        };
        launch = mine;
        pickedId = '';
        idsBefore = listedIds;
        onChange();
        onLaunch();
        schedule();
        const [path, body] = getRequest(mine);
        try {
            const answer = await send('POST', path, reason ? {...body, reason} : body);
            warnings.set(answer.operationId, answer.warnings);
            if (launch === mine) {
                launch = null;
            }
            show(makeOperation(answer, mine, reason));
            await readShown();
        } catch (error) {
            if (launch === mine) {
                mine.isError = true;
                mine.error = error;
                mine.isAnswered = error instanceof Refusal;
                mine.searchUntil = getSearchEnd();
                mine.words = mine.isAnswered ? `Nothing was started: ${error.message}`
                    : `${sayDoubt(error)} Looking for it…`;
                onChange();
                await refresh();
            }
        }
        onChange();
        schedule();
        refresh();
    }

    function getSearchEnd() {
        return performance.now() + SEARCH_SECONDS * 1000;
    }

    // --- Which operation is shown

    // Takes the newest operations as the service lists them; null: unknown, so that the last known stays.
    function takeList(listed) {
        if (listed) {
            choose(listed);
            schedule();
        }
    }

    function choose(listed) {
        const running = listed.filter(isRunning);
        const found = launch && !launch.isAnswered && listed.find(isLaunched);
        if (found) {
            launch = null;
            show(found);
        } else if (!launch) {
            const next = running.find(one => one.id === pickedId) || running[0] || listed.find(isToShow) || null;
            if (!isKept(next, listed)) {
                show(next);
            }
        } else if (launch.isError && !launch.isAnswered && performance.now() > launch.searchUntil) {
            launch.isAnswered = true;
            launch.words = `${sayDoubt(launch.error)} No such operation was found.`;
        }
        listedIds = new Set(listed.map(one => one.id));
        others = running.filter(one => one.id !== shown?.id);
        onChange();
    }

    // Shows another one of the running operations, and stays with it.
    function pick(id) {
        const found = others.find(one => one.id === id);
        if (found) {
            pickedId = id;
            others = [...others.filter(one => one !== found), ...isRunning(shown) ? [shown] : []];
            show(found);
            schedule();
        }
    }

    function isLaunched(one) {
        if (launch.retryOf) {
            return one.retryOf === launch.retryOf;
        }
        // A stop of all joins the one that is running, which may have been listed before.
        const isJoined = !launch.ids && isRunning(one);
        const isNew = Boolean(idsBefore) && !idsBefore.has(one.id);
        return one.kind === launch.kind && one.isWholeAccount === !launch.ids && (isJoined || isNew);
    }

    function isToShow(one) {
        return !one.supersededBy && !one.dismissedAt && (getTone(one) === 'trouble' || !isOld(one));
    }

    function isOld(one) {
        const now = getNow();
        return now === null || now - Date.parse(one.finishedAt) > SUCCESS_MS;
    }

    function isKept(next, listed) {
        if (!shown) {
            return false;
        }
        const place = listed.findIndex(one => one.id === shown.id);
        if (isRunning(shown)) {
            // A list without it is older than the operation.
            return place === -1;
        }
        // A result stays until it is dismissed, retried, or followed by a newer operation.
        const isOver = place !== -1 && (listed[place].supersededBy || listed[place].dismissedAt);
        return !isOver && (!next || (place !== -1 && listed.indexOf(next) >= place));
    }

    function show(operation) {
        if (!operation || operation.id !== shown?.id) {
            shown = operation && {...operation, targets: operation.targets || []};
            failure = null;
            if (shown) {
                readShown();
            }
        }
        onChange();
    }

    // Removes a start that failed from this page, and a result from everybody's.
    async function dismiss() {
        if (launch) {
            launch = null;
        } else {
            const {id} = shown;
            await send('POST', `/api/operations/${encodeURIComponent(id)}/dismiss`);
            shown = shown?.id === id ? null : shown;
        }
        onChange();
    }

    // Called every second; `isInUse` tells whether somebody is reading the result.
    function forgetSuccess(isInUse) {
        if (shown && !isRunning(shown) && getTone(shown) !== 'trouble' && isOld(shown) && !isInUse) {
            shown = null;
            onChange();
        }
    }

    // --- Reading it

    function readShown() {
        reading ||= readOnce().finally(() => {
            reading = null;
            schedule();
        });
        return reading;
    }

    async function readOnce() {
        const {id} = shown;
        try {
            take(await read(`/api/operations/${encodeURIComponent(id)}`));
        } catch (error) {
            if (shown?.id === id) {
                failure = {words: error.message, since: failure?.since || getNow(), times: (failure?.times || 0) + 1};
                onChange();
            }
        }
    }

    // Shows the operation's new state, unless the panel has moved on to another operation.
    function take(operation) {
        if (shown?.id !== operation.id) {
            return;
        }
        const hasEnded = isRunning(shown) && !isRunning(operation);
        shown = operation;
        failure = null;
        onChange();
        if (hasEnded) {
            refresh();
        }
    }

    function schedule() {
        clearTimeout(timer);
        const isSearching = launch && !launch.isAnswered;
        const isUnread = shown && (isRunning(shown) || (!shown.targets.length && getTotal(shown) > 0));
        if (document.hidden || !(isSearching || isUnread)) {
            return;
        }
        const growth = 2 ** Math.max(0, (failure?.times || 0) - 1);
        timer = setTimeout(launch ? refresh : readShown, 1000 * Math.min(MAX_PAUSE_SECONDS, POLL_SECONDS * growth));
    }

    document.addEventListener('visibilitychange', () => {
        if (document.hidden) {
            clearTimeout(timer);
        } else if (shown && isRunning(shown)) {
            readShown();
        } else {
            schedule();
        }
    });

    return {
        get launch() {
            return launch;
        },
        get shown() {
            return shown;
        },
        get others() {
            return others;
        },
        get failure() {
            return failure;
        },
        getWarnings: id => warnings.get(id) || [],
        start,
        refresh,
        takeList,
        pick,
        dismiss,
        forgetSuccess,
        readShown,
        take,
    };
}

function sayDoubt(error) {
    return `It is not known whether the operation started: ${error.message}`;
}

// Returns the operation as far as the answer to its start tells it.
function makeOperation(answer, {kind, ids}, reason) {
    const counts = {
        pending: 0, requested: 0, confirmed: 0, stillRunning: 0, failed: 0, skipped: answer.skipped.length, unknown: 0,
    };
    for (const {state} of answer.results) {
        counts[state] += 1;
    }
    return {
        id: answer.operationId, kind, state: 'requesting', isWholeAccount: !ids, reason: reason || '', requestedBy: '',
        createdAt: answer.timestamp, deadlineAt: null, finishedAt: null, success: null, result: '', notes: [],
        counts, targets: [],
    };
}
