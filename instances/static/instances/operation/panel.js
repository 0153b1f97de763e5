// The strip of an operation: its progress, its result, and the buttons that cancel, retry or dismiss it.

import {getNow} from '../clock.js';
import {make, set, setDisabled, setText} from '../elements.js';
import {Refusal} from '../service.js';
import {send} from '../session.js';
import {count, PAST, sayClock} from '../words.js';
import {createOperationDetails} from './details.js';
import {getTone, getTotal, isRunning, listUnconfirmed} from './states.js';
import {sayDeadline, sayProgress, sayResult, sayTitle} from './words.js';

// The segments of the bar: what stands in these states, from the left.
const SEGMENTS = {done: ['confirmed'], moving: ['requested'], bad: ['failed', 'stillRunning', 'unknown'], rest: ['pending']};

export function createPanel({root, follower}) {
    const panel = document.getElementById('operation');
    const title = document.getElementById('operation-title');
    const summary = document.getElementById('operation-summary');
    const bar = document.getElementById('operation-bar');
    const details = createOperationDetails();
    let shownId = null;
    let isCancelling = false; // whether the question is open
    let refusal = ''; // why the operation was not cancelled

    function getButton(name) {
        return panel.querySelector(`[data-do=operation-${name}]`);
    }

    function render() {
        const {launch, shown} = follower;
        const hasAny = Boolean(launch || shown);
        const focused = panel.contains(document.activeElement) ? document.activeElement : null;
        if (shownId !== (shown?.id ?? null)) {
            shownId = shown?.id ?? null;
            isCancelling = false;
            refusal = '';
            details.clear();
            if (!shown) {
                details.close();
            }
        }
        if (hasAny !== panel.classList.contains('is-shown')) {
            // The empty panel is no landmark. It stays in the page because the summary is announced from it.
            panel.classList.toggle('is-shown', hasAny);
            panel[hasAny ? 'setAttribute' : 'removeAttribute']('aria-labelledby', 'operation-title');
        }
        for (const part of panel.querySelectorAll('.operation-part')) {
            set(part, 'hidden', !hasAny);
        }
        for (const part of panel.querySelectorAll('.of-shown')) {
            set(part, 'hidden', Boolean(launch));
        }
        if (launch) {
            renderLaunch(launch);
        } else if (shown) {
            renderShown(shown);
        } else {
            setText(title, '');
            setText(summary, '');
        }
        if (focused?.closest('[hidden]')) {
            (hasAny ? title : root.querySelector('[data-do=stop-all]')).focus({preventScroll: true});
        }
    }

    function renderLaunch(launch) {
        setText(title, sayTitle(launch.kind, !launch.ids));
        setText(summary, launch.words);
        set(panel.dataset, 'tone', launch.isError ? 'trouble' : 'running');
        renderBar({});
        for (const part of document.getElementById('operation-buttons').children) {
            part.hidden = part.dataset.do !== 'operation-dismiss' || !launch.isError;
        }
    }

    function renderShown(shown) {
        const isOpen = isRunning(shown);
        setText(title, sayTitle(shown.kind, shown.isWholeAccount));
        setText(summary, isOpen ? sayProgress(shown) : sayResult(shown));
        set(panel.dataset, 'tone', getTone(shown));
        renderBar(shown.counts);
        renderTrouble(shown);
        details.render(shown, follower.getWarnings(shown.id), follower.others);
        renderButtons(shown);
        tick();
    }

    function renderBar(counts) {
        const total = getTotal({counts}) || 1;
        const parts = Object.entries(SEGMENTS).map(([name, states]) => (
            [name, states.reduce((sum, state) => sum + (counts[state] || 0), 0)]));
        const look = JSON.stringify(parts);
        if (bar.dataset.shown !== look) {
            bar.dataset.shown = look;
            bar.replaceChildren(...parts.filter(([, number]) => number).map(([name, number]) => {
                const part = make('span', {class: `is-${name}`});
                part.style.width = `${100 * number / total}%`;
                return part;
            }));
        }
    }

    function renderTrouble(shown) {
        const {failure} = follower;
        setText(document.getElementById('operation-failure'), failure
            ? `The operation continues, but can't be read${failure.since ? ` since ${sayClock(failure.since)}` : ''}: ${failure.words}`
            : '');
        // An operation that is cancelled after all was not refused.
        setText(document.getElementById('operation-refusal'), shown.state === 'cancelled' ? '' : refusal);
    }

    function renderButtons(shown) {
        const canBeCancelled = isRunning(shown) && shown.state !== 'cancelled';
        const again = isRunning(shown) || shown.success ? [] : listUnconfirmed(shown);
        isCancelling &&= canBeCancelled;
        set(getButton('cancel'), 'hidden', !canBeCancelled || isCancelling);
        set(getButton('again'), 'hidden', !again.length);
        set(getButton('dismiss'), 'hidden', isRunning(shown));
        set(document.getElementById('operation-cancel-confirm'), 'hidden', !isCancelling);
        setText(document.getElementById('operation-cancel-words'),
            `Cancel? No more instances will be ${PAST[shown.kind]}; ${shown.kind}s already sent continue.`);
        setText(getButton('cancel-now'), `Cancel the remaining ${shown.kind}s`);
        // Only an admin may cancel a stop of all, as only an admin may start one.
        set(getButton('cancel').dataset, 'needs', shown.isWholeAccount ? 'admin' : 'operator');
        setText(getButton('again'), `Retry ${count(again.length)}`);
        setText(getButton('details'), follower.others ? `Details (${follower.others} more)` : 'Details');
        set(getButton('details'), 'hidden', false);
    }

    function tick() {
        const {launch, shown} = follower;
        if (shown && !launch) {
            setText(document.getElementById('operation-time'), sayTime(shown));
            details.tick(shown);
        }
        follower.forgetSuccess(details.isOpen || panel.matches(':hover, :focus-within'));
    }

    function focus() {
        title.focus({preventScroll: true});
        panel.scrollIntoView({block: 'nearest'});
    }

    function confirmCancel(isAsked) {
        isCancelling = isAsked;
        refusal = '';
        render();
        getButton(isAsked ? 'cancel-now' : 'cancel').focus();
    }

    async function cancel(button) {
        const {id} = follower.shown;
        setDisabled(button, true);
        try {
            const operation = await send('POST', `/api/operations/${encodeURIComponent(id)}/cancel`);
            if (shownId === id) {
                isCancelling = false;
                follower.take(operation);
            }
        } catch (error) {
            if (shownId === id) {
                const start = error instanceof Refusal ? 'Not cancelled' : 'It is not known whether the operation was cancelled';
                refusal = `${start}: ${error.message}`;
                isCancelling = false;
                render();
                await follower.readShown();
            }
        } finally {
            setDisabled(button, false);
        }
    }

    // Returns whether the element belongs to the open question.
    function takeBack(element) {
        const isOpen = isCancelling && element.closest('#operation-cancel-confirm') !== null;
        if (isOpen) {
            confirmCancel(false);
        }
        return isOpen;
    }

    function retry() {
        const {launch, shown} = follower;
        const ids = listUnconfirmed(shown).map(one => one.instanceId);
        if (ids.length && !launch) {
            follower.start({kind: shown.kind, ids, retryOf: shown.id, reason: shown.reason});
        }
    }

    async function dismiss(button) {
        setDisabled(button, true);
        try {
            await follower.dismiss();
            if (panel.classList.contains('is-shown')) {
                focus();
            } else {
                root.querySelector('[data-do=stop-all]').focus();
            }
        } catch (error) {
            refusal = `Not dismissed: ${error.message}`;
            render();
        } finally {
            setDisabled(button, false);
        }
        follower.refresh();
    }

    return {
        render,
        tick,
        focus,
        takeBack,
        actions: {
            'operation-cancel': () => confirmCancel(true),
            'operation-cancel-now': cancel,
            'operation-cancel-keep': () => confirmCancel(false),
            'operation-again': retry,
            'operation-dismiss': dismiss,
            'operation-details': button => details.isOpen ? details.close() : details.open(button),
        },
    };
}

// Says how long a running operation has taken, and when its result is due.
function sayTime(shown) {
    const now = getNow();
    if (!isRunning(shown) || now === null) {
        return '';
    }
    const seconds = Math.max(0, Math.round((now - Date.parse(shown.createdAt)) / 1000));
    const clock = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
    return [clock, sayDeadline(shown)].filter(Boolean).join(' · ');
}
