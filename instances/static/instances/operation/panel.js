// The strip of an operation: one line with its progress or result, and the buttons that cancel, retry or dismiss it.

import {getNow} from '../clock.js';
import {make, set, setDisabled, setText} from '../elements.js';
import {loadLater} from '../loading.js';
import {Refusal} from '../service.js';
import {send} from '../session.js';
import {count, PAST, sayClock} from '../words.js';
import {createButtons} from './buttons.js';
import {getTone, getTotal, isRunning, listStopped, listUnconfirmed} from './states.js';
import {sayDeadline, sayDoing, sayHeading, sayProgress, sayResult, sayTitle} from './words.js';

// The segments of the bar: what stands in these states, from the left.
const SEGMENTS = {done: ['confirmed'], moving: ['requested'], bad: ['failed', 'stillRunning', 'unknown'], rest: ['pending']};

// `ask` opens the dialog that confirms, `restore` the plan that starts instances again.
export function createPanel({root, follower, ask, restore}) {
    const panel = document.getElementById('operation');
    const summary = document.getElementById('operation-summary');
    const title = make('h2', {id: 'operation-title', tabindex: -1});
    const bar = make('div', {id: 'operation-bar', 'aria-hidden': 'true'});
    const trouble = make('p', {id: 'operation-failure', class: 'is-error', role: 'status'});
    const time = make('span', {id: 'operation-time', class: 'quiet'});
    const buttons = createButtons(['again', 'details', 'cancel', 'dismiss'], {id: 'operation-buttons'});
    const parts = [title, bar, time, buttons.element];
    let details = null; // the drawer; null until an operation was shown
    let loading = null;
    let unloaded = ''; // why the drawer was not opened
    let shownId = null;
    let refusal = ''; // why the operation was not cancelled or dismissed

    summary.before(title, bar);
    summary.after(time, buttons.element, trouble);
    render();

    function render() {
        const {launch, shown} = follower;
        const hasAny = Boolean(launch || shown);
        const focused = [panel, details].some(place => place?.contains(document.activeElement)) ? document.activeElement : null;
        const wasInDrawer = Boolean(details?.contains(focused));
        if (shownId !== (shown?.id ?? null)) {
            shownId = shown?.id ?? null;
            refusal = '';
            details?.clear();
            if (!shown) {
                details?.close();
            }
        }
        if (hasAny !== panel.classList.contains('is-shown')) {
            // The empty panel is no landmark. It stays in the page because the summary is announced from it.
            panel.classList.toggle('is-shown', hasAny);
            panel[hasAny ? 'setAttribute' : 'removeAttribute']('aria-labelledby', title.id);
        }
        for (const part of parts) {
            set(part, 'hidden', !hasAny);
        }
        set(time, 'hidden', !shown || Boolean(launch));
        const failure = shown && !launch ? sayTrouble() : '';
        setText(trouble, failure);
        if (launch) {
            renderLaunch(launch);
        } else if (shown) {
            renderShown(shown, failure);
        } else {
            setText(title, '');
            setText(summary, '');
        }
        if (focused?.closest('[hidden]')) {
            giveFocus(wasInDrawer);
        }
    }

    // To what stands where the focus was: the drawer, the strip, or the button that may begin the next operation.
    function giveFocus(wasInDrawer) {
        if (wasInDrawer && details?.isOpen) {
            details.focus();
        } else {
            (panel.classList.contains('is-shown') ? title : root.querySelector('[data-do=stop-all]')).focus({preventScroll: true});
        }
    }

    function renderLaunch(launch) {
        setText(title, launch.isError ? sayTitle(launch.kind, !launch.ids) : sayDoing(launch.kind));
        setText(summary, launch.words);
        set(panel.dataset, 'tone', launch.isError ? 'trouble' : 'running');
        renderBar({});
        buttons.render(null, {isDismissible: launch.isError});
    }

    function renderShown(shown, failure) {
        setText(title, sayHeading(shown));
        setText(summary, isRunning(shown) ? sayProgress(shown) : sayResult(shown));
        set(panel.dataset, 'tone', getTone(shown));
        renderBar(shown.counts);
        buttons.render(shown, {others: follower.others.length, isDismissible: !isRunning(shown)});
        loading ||= load();
        details?.render(shown, {warnings: follower.getWarnings(shown.id), running: follower.others, failure});
        tick();
    }

    function renderBar(counts) {
        const total = getTotal({counts}) || 1;
        const sizes = Object.entries(SEGMENTS).map(([name, states]) => (
            [name, states.reduce((sum, state) => sum + (counts[state] || 0), 0)]));
        const look = JSON.stringify(sizes);
        if (bar.dataset.shown !== look) {
            bar.dataset.shown = look;
            bar.replaceChildren(...sizes.filter(([, number]) => number).map(([name, number]) => {
                const part = make('span', {class: `is-${name}`});
                part.style.width = `${100 * number / total}%`;
                return part;
            }));
        }
    }

    function sayTrouble() {
        const {failure} = follower;
        const unread = failure
            ? `The operation continues, but can't be read${failure.since ? ` since ${sayClock(failure.since)}` : ''}: ${failure.words}`
            : '';
        return [unread, refusal, unloaded].filter(Boolean).join(' ');
    }

    function tick() {
        const {launch, shown} = follower;
        if (shown && !launch) {
            setText(time, sayTime(shown));
            if (isRunning(shown)) {
                setText(summary, sayProgress(shown));
            }
            details?.tick(shown);
        }
        follower.forgetSuccess(details?.isOpen || panel.matches(':hover, :focus-within'));
    }

    function focus() {
        details?.close();
        title.focus({preventScroll: true});
        panel.scrollIntoView({block: 'nearest'});
    }

    // Returns why the drawer can't be loaded; '' when it was.
    async function load() {
        try {
            const {createOperationDrawer} = await loadLater();
            details ||= createOperationDrawer();
        } catch (error) {
            return error.message;
        }
        unloaded = '';
        render();
        return '';
    }

    async function toggleDetails(button) {
        if (details?.isOpen) {
            details.close();
            return;
        }
        const problem = await loading;
        if (details) {
            details.open(button);
        } else {
            unloaded = problem;
            loading = null;
            render();
        }
    }

    async function cancel() {
        const {id, kind, counts} = follower.shown;
        refusal = '';
        render();
        const answer = await ask({
            title: `Cancel the remaining ${kind}s`,
            sentences: [
                counts.pending ? `${count(counts.pending)} will not be ${PAST[kind]}.` : `All ${kind}s are requested already; none is repeated.`,
                `${counts.requested === 1 ? `The ${kind}` : `${kind[0].toUpperCase()}${kind.slice(1)}s`} already sent can't be called back, and are verified.`,
            ],
            action: `Cancel the remaining ${kind}s`,
            keep: `Keep ${sayDoing(kind).toLowerCase()}`,
            isDanger: true,
        });
        if (!answer || shownId !== id || !isRunning(follower.shown)) {
            return;
        }
        try {
            const operation = await send('POST', `/api/operations/${encodeURIComponent(id)}/cancel`);
            follower.take(operation);
        } catch (error) {
            if (shownId === id) {
                const start = error instanceof Refusal ? 'Not cancelled' : 'It is not known whether the operation was cancelled';
                refusal = `${start}: ${error.message}`;
                render();
                await follower.readShown();
            }
        }
    }

    function retry() {
        const {launch, shown} = follower;
        const ids = listUnconfirmed(shown).map(one => one.instanceId);
        if (ids.length && !launch) {
            follower.start({kind: shown.kind, ids, retryOf: shown.id, reason: shown.reason});
        }
    }

    async function dismiss(button) {
        const wasInDrawer = details?.contains(button);
        setDisabled(button, true);
        try {
            await follower.dismiss();
            giveFocus(wasInDrawer);
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
        actions: {
            'operation-cancel': cancel,
            'operation-again': retry,
            'operation-restore': () => restore(follower.shown.id, listStopped(follower.shown).map(one => one.instanceId)),
            'operation-dismiss': dismiss,
            'operation-pick': button => {
                follower.pick(button.dataset.operation);
                details.focus();
            },
            'operation-details': toggleDetails,
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
