// The panel of an operation: its progress, its result, and the buttons that cancel, retry or dismiss it.

import {listItems, set, setDisabled, setText} from '../elements.js';
import {Refusal} from '../service.js';
import {send} from '../session.js';
import {count, PAST, sayClock} from '../words.js';
import {getTone, getTotal, isRunning, listUnconfirmed} from './states.js';
import {createTargets} from './targets.js';
import {sayFigures, sayProgress, sayResult, sayTitle, sayWhen} from './words.js';

export function createPanel({root, follower}) {
    const panel = document.getElementById('operation');
    const title = document.getElementById('operation-title');
    const summary = document.getElementById('operation-summary');
    const progress = panel.querySelector('progress');
    const targets = createTargets();
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
            targets.clear();
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
        progress.removeAttribute('value');
        progress.hidden = launch.isError;
        for (const part of document.getElementById('operation-buttons').children) {
            part.hidden = part.dataset.do !== 'operation-dismiss' || !launch.isError;
        }
    }

    function renderShown(shown) {
        const isOpen = isRunning(shown);
        setText(title, sayTitle(shown.kind, shown.isWholeAccount));
        setText(summary, isOpen ? sayProgress(shown) : sayResult(shown));
        set(panel.dataset, 'tone', getTone(shown));
        setText(document.getElementById('operation-figures'), isOpen ? '' : sayFigures(shown));
        setText(document.getElementById('operation-by'), shown.requestedBy ? ` by ${shown.requestedBy}` : '');
        setText(document.getElementById('operation-reason'), shown.reason ? `“${shown.reason}”` : '');
        set(progress, 'hidden', !isOpen);
        set(progress, 'max', Math.max(1, getTotal(shown)));
        if (progress.getAttribute('value') !== String(shown.counts.confirmed)) {
            // Without the attribute the bar is indeterminate, although its value reads 0.
            progress.value = shown.counts.confirmed;
        }
        renderNotes(shown);
        renderTrouble(shown);
        targets.render(shown);
        renderButtons(shown);
        tick();
    }

    function renderNotes(shown) {
        const notes = [...new Set([...shown.notes, ...isRunning(shown) ? follower.getWarnings(shown.id) : []])];
        const list = document.getElementById('operation-notes');
        const look = notes.join('\n');
        if (list.dataset.shown !== look) {
            list.dataset.shown = look;
            listItems(list, notes);
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
        setText(document.getElementById('operation-others'), follower.others ? `(${follower.others} more running)` : '');
        set(document.getElementById('operation-records'), 'hidden', false);
    }

    function tick() {
        const {launch, shown} = follower;
        if (shown && !launch) {
            setText(document.getElementById('operation-begun'), `Started at ${sayClock(shown.createdAt)}`);
            setText(document.getElementById('operation-when'), sayWhen(shown));
        }
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

    function dismiss() {
        follower.dismiss();
        if (panel.classList.contains('is-shown')) {
            focus();
        } else {
            root.querySelector('[data-do=stop-all]').focus();
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
        },
    };
}
