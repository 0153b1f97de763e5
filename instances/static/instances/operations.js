// Operations on many instances: the dialog that tells beforehand what would happen, and the panel that tells what does.
// An operation lives in the service; this shows it, in each open dashboard, and can go away at any time.

import {getNow} from './clock.js';
import {clone, count, findRepeated, listItems, sayAge, sayClock, set, setDisabled, setText} from './elements.js';
import {sortByName} from './order.js';
import {Refusal, read} from './service.js';
import {send} from './session.js';

const POLL_SECONDS = 2;
const MAX_PAUSE_SECONDS = 10;
// How long an operation is looked for whose start was not answered.
const SEARCH_SECONDS = 60;
const RECENT_MS = 15 * 60 * 1000;
// Enough to find those that run among the newest.
const LISTED = 20;
const DISMISSED_KEY = 'dismissedOperation';

const WORDS = {
    stop: {doing: 'Stopping', done: 'stopped', undone: 'still runs', undoneMany: 'still run'},
    start: {doing: 'Starting', done: 'running', undone: 'does not run', undoneMany: "don't run"},
    restart: {
        doing: 'Restarting', done: 'restarted', undone: 'has not restarted', undoneMany: 'have not restarted',
    },
};
const LISTS = {
    stillRunning: 'trouble',
    failed: 'trouble',
    unknown: 'trouble',
    requested: 'under-way',
    pending: 'under-way',
    confirmed: 'confirmed',
    skipped: 'skipped',
};
// What was wished for these is not seen.
const UNCONFIRMED = ['stillRunning', 'failed', 'unknown', 'requested', 'pending'];

const root = document.getElementById('dashboard');
const dialog = document.getElementById('plan');
const form = document.getElementById('plan-form');
const panel = document.getElementById('operation');
const title = document.getElementById('operation-title');
const summary = document.getElementById('operation-summary');

let plan = null; // what the dialog is about: {kind, ids, answer, requested, left}; no ids: the whole account
let launch = null; // a start that is not answered, or was not taken: {kind, ids, words, isError, isAnswered, searchUntil}
let shown = null; // the operation in the panel, as the API tells it; without targets until it was read by itself
let listedIds = null; // of the operations when they were last listed
let known = listedIds; // those of them that were there when a start was sent
let others = 0; // how many more run
let isCancelling = false; // whether the second press is waited for
let refusal = ''; // why it was not cancelled
let failures = 0;
let failingSince = null;
let failure = '';
let reading = null;
let looking = null;
let timer = 0;
const warnings = new Map(); // id → the sentences that came with the answer to its start
const targets = new Map(); // id → its row in the panel

export function isRunning(operation) {
    // One that was cancelled has an end only when those asked before are verified.
    return operation.finishedAt === null;
}

function getTotal(operation) {
    return Object.entries(operation.counts).reduce((sum, [state, number]) => (state === 'skipped' ? sum : sum + number), 0);
}

function announce(isOver) {
    root.dispatchEvent(new CustomEvent('operation', {detail: {isOver}}));
}

export function getPageTitle() {
    if (shown && !launch) {
        return isRunning(shown) ? `${WORDS[shown.kind].doing} ${shown.counts.confirmed}/${getTotal(shown)}` : '';
    }
    return launch && !launch.isError ? `${WORDS[launch.kind].doing} …` : '';
}

export function hasTrouble() {
    return Boolean(launch ? launch.isError : shown && getTone() === 'trouble');
}

function getTone() {
    const isCancelled = shown.state === 'cancelled' && !UNCONFIRMED.some(state => shown.counts[state]);
    return isRunning(shown) ? 'running' : isCancelled ? 'cancelled' : shown.success ? 'done' : 'trouble';
}

// --- The dialog: what would happen

// `expected` is how many the page's own list has for it; null: it has none.
export function preview(kind, ids, expected) {
    plan = {kind, ids, expected, answer: null};
    form.reset();
    setText(document.getElementById('plan-title'), ids ? `${capitalize(kind)} the selected instances` : 'Stop all instances');
    dialog.showModal();
    document.getElementById('plan-title').focus();
    readPlan();
}

function capitalize(word) {
    return word[0].toUpperCase() + word.slice(1);
}

function getRequest(wanted) {
    if (wanted.retryOf) {
        return ['/api/operations', {fromOperation: wanted.retryOf}];
    }
    return wanted.ids ? ['/api/operations', {kind: wanted.kind, ids: wanted.ids}] : ['/api/instances/stop-all', {}];
}

async function readPlan() {
    const wanted = plan;
    const [path, body] = getRequest(wanted);
    wanted.answer = null;
    wanted.failure = '';
    renderPlan();
    try {
        wanted.answer = await send('POST', path, {...body, dryRun: true});
        const {results, skipped} = wanted.answer;
        wanted.requested = results.filter(one => one.state === 'pending');
        wanted.left = [
            ...skipped,
            ...results.filter(one => one.state !== 'pending').map(one => ({...one, reason: one.error || `It is ${one.status} already.`})),
        ];
    } catch (error) {
        wanted.failure = error.message;
    }
    if (plan === wanted && dialog.open) {
        renderPlan();
        const isWaiting = !dialog.contains(document.activeElement) || document.activeElement.matches('#plan-title, [data-do=plan-retry]');
        if (isWaiting) {
            const target = wanted.failure ? 'retry' : !wanted.requested.length ? 'close' : wanted.ids ? 'go' : 'number';
            document.getElementById(`plan-${target}`).focus();
        }
    }
}

function renderPlan() {
    const {kind, ids, answer} = plan;
    const found = answer ? plan.requested.length : 0;
    const state = document.getElementById('plan-state');
    setText(state, plan.failure ? `The account can't be read: ${plan.failure}` : !answer ? 'Reading the account …' : sayPlan());
    state.classList.toggle('is-error', Boolean(plan.failure));
    document.getElementById('plan-retry').hidden = !plan.failure;
    document.getElementById('plan-found').hidden = !answer;
    for (const id of ['plan-sure', 'plan-go']) {
        document.getElementById(id).hidden = !found;
    }
    document.getElementById('plan-number-field').hidden = Boolean(ids);
    setText(document.getElementById('plan-number-label'), `Type ${found} to stop ${found === 1 ? 'it' : 'them'}`);
    setText(document.getElementById('plan-go'), `${capitalize(kind)} ${count(found)}`);
    document.getElementById('plan-go').classList.toggle('is-danger', kind !== 'start');
    setText(document.getElementById('plan-close'), found ? 'Cancel' : 'Close');
    if (!answer) {
        return;
    }
    const repeated = findRepeated([...plan.requested, ...plan.left].map(getName));
    fillNames('plan-targets', plan.requested, repeated);
    fillNames('plan-skipped', plan.left, repeated);
    setText(document.getElementById('plan-skipped-title'), `${plan.left.length} skipped`);
    listItems(document.getElementById('plan-warnings'), answer.warnings);
    renderObstacle();
}

function sayPlan() {
    const {kind, ids, expected, requested} = plan;
    const isOld = expected !== null && expected !== requested.length;
    const older = isOld ? ` The list on this page is older and has ${expected}.` : '';
    if (!requested.length) {
        return (ids ? `Of the selected, none can be asked to ${kind} now.` : 'Nothing runs: there is nothing to stop.') + older;
    }
    const done = {stop: 'stopped', start: 'started', restart: 'restarted'}[kind];
    const groups = kind === 'stop' ? sayGroups() : '';
    // The names follow where nothing else does.
    const end = groups ? `: ${groups}.` : older ? '.' : ':';
    return `${count(requested.length)} will be ${done}${end}${older}`;
}

// Returns '' when all are running, as the figure of that name counts them.
function sayGroups() {
    const numbers = new Map();
    for (const {status} of plan.requested) {
        // Of the whole account only what runs or starts is stopped.
        const word = status === 'running' || plan.ids ? status : 'starting';
        numbers.set(word, (numbers.get(word) || 0) + 1);
    }
    return numbers.size === 1 && numbers.has('running') ? ''
        : [...numbers].map(([word, number]) => `${number} ${word}`).join(', ');
}

function fillNames(id, listed, repeated) {
    const list = document.getElementById(id);
    list.parentElement.hidden = !listed.length;
    list.replaceChildren(...sortTargets(listed).map(one => {
        const item = clone('named-template');
        item.querySelector('.target-name').textContent = getName(one);
        item.querySelector('.target-id').textContent = repeated.has(getName(one)) ? one.instanceId : '';
        item.querySelector('.why').textContent = one.reason || '';
        return item;
    }));
}

function getName(target) {
    return target.name || target.instanceId;
}

function sortTargets(listed) {
    return sortByName(listed, getName, one => one.instanceId);
}

function findObstacle() {
    const wanted = String(plan.requested.length);
    const typed = form.elements.number.value.trim();
    return plan.ids || typed === wanted ? ''
        : typed ? `“${typed}” is not ${wanted}: nothing is stopped yet.` : `The button waits for the number ${wanted}.`;
}

function renderObstacle() {
    if (!plan || !plan.answer) {
        return;
    }
    const obstacle = findObstacle();
    setText(document.getElementById('plan-obstacle'), obstacle);
    setDisabled(document.getElementById('plan-go'), Boolean(obstacle));
    form.elements.number.setAttribute('aria-invalid', String(Boolean(obstacle && form.elements.number.value)));
}

function confirmPlan() {
    if (!plan || !plan.answer || !plan.requested.length || !dialog.open) {
        return;
    }
    renderObstacle();
    if (findObstacle()) {
        form.elements.number.focus();
        return;
    }
    const wanted = {...plan, reason: form.elements.reason.value.trim(), number: plan.requested.length};
    dialog.close();
    begin(wanted);
}

dialog.addEventListener('input', renderObstacle);
dialog.addEventListener('close', () => {
    plan = null;
    // The button that opened it may have gone meanwhile.
    if (document.activeElement === document.body) {
        root.querySelector('[data-do=stop-all]').focus();
    }
});

// --- Starting one

async function begin({kind, ids, retryOf, reason, number}) {
    launch = {kind, ids, retryOf, isError: false, isAnswered: false, searchUntil: performance.now() + SEARCH_SECONDS * 1000};
    launch.words = `${WORDS[kind].doing} ${count(number)}: the service is asked to …`;
    const mine = launch;
    known = listedIds;
    const [path, body] = getRequest({kind, ids, retryOf});
    render();
    announce(false);
    focusPanel();
    schedule();
    try {
        const answer = await send('POST', path, reason ? {...body, reason} : body);
        warnings.set(answer.operationId, answer.warnings);
        if (launch === mine) {
            launch = null;
        }
        show({
            id: answer.operationId, kind, state: 'requesting', isWholeAccount: !ids, reason: reason || '', requestedBy: '',
            createdAt: answer.timestamp, deadlineAt: null, finishedAt: null, success: null, result: '', notes: [],
            counts: countStates(answer), targets: [],
        });
        await Promise.all([readShown(), look()]);
    } catch (error) {
        if (launch === mine) {
            mine.isError = true;
            mine.isAnswered = error instanceof Refusal;
            mine.searchUntil = performance.now() + SEARCH_SECONDS * 1000;
            mine.words = mine.isAnswered ? `Nothing was started: ${error.message}`
                : `It is not known whether it began: ${error.message} Looking for it …`;
            render();
            await look();
        }
    }
    render();
    schedule();
    announce(true);
}

function countStates(answer) {
    const counts = {pending: 0, requested: 0, confirmed: 0, stillRunning: 0, failed: 0, skipped: answer.skipped.length, unknown: 0};
    for (const {state} of answer.results) {
        counts[state] += 1;
    }
    return counts;
}

function getUnconfirmed() {
    return shown.targets.filter(one => UNCONFIRMED.includes(one.state));
}

function tryAgain() {
    const ids = getUnconfirmed().map(one => one.instanceId);
    if (ids.length && !launch) {
        begin({kind: shown.kind, ids, retryOf: shown.id, reason: shown.reason, number: ids.length});
    }
}

// --- Which operation is shown

export function look() {
    looking ||= choose().finally(() => {
        looking = null;
        schedule();
    });
    return looking;
}

async function choose() {
    let listed;
    try {
        listed = (await read(`/api/operations?pageSize=${LISTED}`)).operations;
    } catch {
        // Where that matters, it shows: the panel's own reading fails too, and the listing's.
        return;
    }
    const running = listed.filter(isRunning);
    const found = launch && !launch.isAnswered && listed.find(isLaunched);
    if (found) {
        launch = null;
        show(found);
    } else if (!launch) {
        const dismissed = readDismissed();
        const next = running[0] || listed.find(one => isRecent(one) && !isDismissed(one, dismissed)) || null;
        if (!isKept(next, listed, dismissed)) {
            show(next);
        }
    } else if (launch.isError && !launch.isAnswered && performance.now() > launch.searchUntil) {
        launch.isAnswered = true;
        launch.words = launch.words.replace(/ Looking for it …$/, ' No such operation is seen to run.');
    }
    listedIds = new Set(listed.map(one => one.id));
    others = running.filter(one => !shown || one.id !== shown.id).length;
    render();
}

function isLaunched(one) {
    if (launch.retryOf) {
        return one.retryOf === launch.retryOf;
    }
    // Who asks for all while that goes on gets the one that runs; it was there before, too.
    const isJoined = !launch.ids && isRunning(one);
    return one.kind === launch.kind && one.isWholeAccount === !launch.ids && (isJoined || Boolean(known) && !known.has(one.id));
}

function isRecent(one) {
    const now = getNow();
    return !one.supersededBy && now !== null && now - Date.parse(one.finishedAt) < RECENT_MS;
}

function isKept(next, listed, dismissed) {
    if (!shown) {
        return false;
    }
    const place = listed.findIndex(one => one.id === shown.id);
    if (isRunning(shown)) {
        // A list without it was read before it began.
        return place === -1;
    }
    // What somebody looks at stays, until it is dismissed, retried, or a newer one begins.
    const isOver = isDismissed(shown, dismissed) || (place !== -1 && listed[place].supersededBy);
    return !isOver && (!next || (place !== -1 && listed.indexOf(next) >= place));
}

function show(operation) {
    if (!operation || !shown || operation.id !== shown.id) {
        shown = operation && {...operation, targets: operation.targets || []};
        isCancelling = false;
        refusal = '';
        failures = 0;
        failingSince = null;
        failure = '';
        targets.clear();
        for (const list of panel.querySelectorAll('.targets')) {
            list.replaceChildren();
        }
        if (shown) {
            readShown();
        }
    }
    render();
    announce(false);
}

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
        const operation = await read(`/api/operations/${encodeURIComponent(id)}`);
        if (shown && shown.id === id) {
            take(operation);
        }
    } catch (error) {
        if (shown && shown.id === id) {
            failures += 1;
            failingSince ||= getNow();
            failure = error.message;
            render();
        }
    }
}

function take(operation) {
    const hasEnded = isRunning(shown) && !isRunning(operation);
    shown = operation;
    failures = 0;
    failingSince = null;
    failure = '';
    render();
    announce(hasEnded);
}

function schedule() {
    clearTimeout(timer);
    const isSearching = launch && !launch.isAnswered;
    // One that the list told of has no targets until it is read by itself.
    const isUnread = shown && (isRunning(shown) || (!shown.targets.length && getTotal(shown) > 0));
    if (document.hidden || !(isSearching || isUnread)) {
        return;
    }
    const seconds = Math.min(MAX_PAUSE_SECONDS, POLL_SECONDS * 2 ** Math.max(0, failures - 1));
    timer = setTimeout(launch ? look : readShown, seconds * 1000);
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

// --- What this browser has dismissed; a store that is full or forbidden forgets, and nothing else

let forgotten = {createdAt: '', finishedAt: ''};

// Returns the times of the last operation that was dismissed: those before it are dismissed with it.
function readDismissed() {
    try {
        return JSON.parse(localStorage.getItem(DISMISSED_KEY)) || forgotten;
    } catch {
        return forgotten;
    }
}

function isDismissed(operation, dismissed) {
    return !isRunning(operation) && (operation.finishedAt < dismissed.finishedAt
        || (operation.finishedAt === dismissed.finishedAt && operation.createdAt <= dismissed.createdAt));
}

function remember({createdAt, finishedAt}) {
    if (isDismissed({createdAt, finishedAt}, readDismissed())) {
        return;
    }
    forgotten = {createdAt, finishedAt};
    try {
        localStorage.setItem(DISMISSED_KEY, JSON.stringify(forgotten));
    } catch {
        // It is hidden until the page is loaded anew.
    }
}

function dismiss() {
    if (launch) {
        launch = null;
    } else {
        remember(shown);
        shown = null;
    }
    render();
    announce(false);
    if (panel.classList.contains('is-shown')) {
        focusPanel();
    } else {
        root.querySelector('[data-do=stop-all]').focus();
    }
    look();
}

// --- The panel: what happens

function focusPanel() {
    title.focus({preventScroll: true});
    panel.scrollIntoView({block: 'nearest'});
}

function render() {
    const focused = panel.contains(document.activeElement) ? document.activeElement : null;
    const hasAny = Boolean(launch || shown);
    if (hasAny !== panel.classList.contains('is-shown')) {
        // Empty, it is only where the summary is announced from, and no landmark.
        panel.classList.toggle('is-shown', hasAny);
        panel[hasAny ? 'setAttribute' : 'removeAttribute']('aria-labelledby', 'operation-title');
    }
    for (const part of panel.querySelectorAll('.operation-part')) {
        set(part, 'hidden', !hasAny);
    }
    if (launch) {
        renderLaunch();
    } else if (shown) {
        renderShown();
    } else {
        setText(title, '');
        setText(summary, '');
    }
    if (focused && focused.closest('[hidden]')) {
        (hasAny ? title : root.querySelector('[data-do=stop-all]')).focus({preventScroll: true});
    }
}

function renderLaunch() {
    setText(title, sayTitle(launch.kind, !launch.ids));
    setText(summary, launch.words);
    set(panel.dataset, 'tone', launch.isError ? 'trouble' : 'running');
    const progress = panel.querySelector('progress');
    progress.removeAttribute('value');
    progress.hidden = launch.isError;
    for (const part of panel.querySelectorAll('.of-shown')) {
        part.hidden = true;
    }
    for (const part of document.getElementById('operation-buttons').children) {
        part.hidden = part.dataset.do !== 'operation-dismiss' || !launch.isError;
    }
}

function sayTitle(kind, isWholeAccount) {
    return isWholeAccount ? 'Stop all' : `${capitalize(kind)} of selected instances`;
}

function renderShown() {
    const isOpen = isRunning(shown);
    const total = getTotal(shown);
    for (const part of panel.querySelectorAll('.of-shown')) {
        set(part, 'hidden', false);
    }
    setText(title, sayTitle(shown.kind, shown.isWholeAccount));
    setText(summary, isOpen ? `${sayProgress()}.` : showResult());
    set(panel.dataset, 'tone', getTone());
    setText(document.getElementById('operation-figures'), isOpen ? '' : sayFigures());
    setText(document.getElementById('operation-by'), shown.requestedBy ? ` by ${shown.requestedBy}` : '');
    setText(document.getElementById('operation-reason'), shown.reason ? `“${shown.reason}”` : '');
    const progress = panel.querySelector('progress');
    set(progress, 'hidden', !isOpen);
    set(progress, 'max', Math.max(1, total));
    if (progress.getAttribute('value') !== String(shown.counts.confirmed)) {
        // Without the attribute, as while it is not answered, it reads 0 and is no 0.
        progress.value = shown.counts.confirmed;
    }
    renderNotes();
    renderFailure();
    renderTargets();
    renderButtons(isOpen);
    tick();
}

// What needed no request: it was so already, or on its way.
function countAlready(state) {
    return shown.targets.filter(one => one.state === state && !one.attempts).length;
}

function sayProgress() {
    const {doing} = WORDS[shown.kind];
    const start = shown.state === 'cancelled' ? `Cancelled, nobody else is asked. ${doing}` : doing;
    const total = getTotal(shown);
    const meant = total - countAlready('confirmed');
    return `${start} ${meant && meant < total ? `${meant} of ` : ''}${count(total)}: ${sayCounts()}`;
}

function sayCounts() {
    const {counts, kind, state} = shown;
    const {done, undone, undoneMany} = WORDS[kind];
    const isOpen = isRunning(shown);
    const [already, onTheWay] = [countAlready('confirmed'), countAlready('requested')];
    const words = [
        [counts.confirmed - already, isOpen ? `confirmed ${done}` : `seen ${done}`],
        [already, `${done} already`],
        [onTheWay, 'on the way already'],
        [counts.stillRunning, counts.stillRunning === 1 ? undone : undoneMany],
        [counts.requested - onTheWay, isOpen ? 'asked' : `asked and not seen ${done}`],
        [counts.pending, isOpen && state !== 'cancelled' ? 'to be asked' : 'not asked'],
        [counts.failed, isOpen ? 'failed so far' : 'failed'],
        [counts.unknown, 'not known'],
        [counts.skipped, 'skipped'],
    ];
    return words.filter(([number], index) => number || index === 0).map(([number, word]) => `${number} ${word}`).join(', ');
}

function sayFigures() {
    return `${capitalize(sayCounts())}.`;
}

function showResult() {
    const total = getTotal(shown);
    const {done} = WORDS[shown.kind];
    if (!shown.success) {
        return shown.result || (shown.state === 'cancelled' ? 'Cancelled.' : `Not all are ${done}.`);
    }
    if (!total) {
        return shown.result || 'There was nothing to do.';
    }
    const times = shown.targets.map(one => one.confirmedAt).filter(Boolean).sort();
    const seen = times.length ? `, seen at ${sayClock(times[times.length - 1])}` : '';
    const already = countAlready('confirmed');
    const before = already && already < total ? ` ${already} ${already === 1 ? 'was' : 'were'} ${done} already.` : '';
    return total === 1 ? `The one instance is ${done}${seen}.` : `All ${total} are ${done}${seen}.${before}`;
}

function renderNotes() {
    const notes = [...new Set([...shown.notes, ...(isRunning(shown) && warnings.get(shown.id) || [])])];
    const list = document.getElementById('operation-notes');
    if (list.dataset.shown !== notes.join('\n')) {
        list.dataset.shown = notes.join('\n');
        listItems(list, notes);
    }
}

function renderFailure() {
    setText(document.getElementById('operation-failure'), failure
        ? `It can't be read${failingSince ? ` since ${sayClock(failingSince)}` : ''}: ${failure} What is shown is older than that; the work goes on without this page.`
        : '');
    // One that is cancelled after all was not refused.
    setText(document.getElementById('operation-refusal'), shown.state === 'cancelled' ? '' : refusal);
}

function renderTargets() {
    const isOpen = isRunning(shown);
    const repeated = findRepeated(shown.targets.map(getName));
    const sizes = {};
    const last = {}; // list → its row before the next one
    for (const one of sortTargets(shown.targets)) {
        const list = !isOpen && LISTS[one.state] === 'under-way' ? 'trouble' : LISTS[one.state];
        sizes[list] = (sizes[list] || 0) + 1;
        const looks = JSON.stringify([one, isOpen, repeated.has(getName(one))]);
        let row = targets.get(one.instanceId);
        if (!row) {
            row = {element: clone('target-template')};
            targets.set(one.instanceId, row);
        }
        if (row.looks !== looks) {
            row.looks = looks;
            updateTarget(row.element, one, repeated.has(getName(one)));
        }
        const parent = document.getElementById(`targets-${list}`);
        const next = last[list] ? last[list].nextElementSibling : parent.firstElementChild;
        if (next !== row.element) {
            parent.insertBefore(row.element, next);
        }
        last[list] = row.element;
    }
    for (const list of new Set(Object.values(LISTS))) {
        const element = document.getElementById(`targets-${list}`);
        set(element.parentElement, 'hidden', !sizes[list]);
        setText(element.parentElement.querySelector('.size'), String(sizes[list] || 0));
    }
    setText(document.getElementById('targets-confirmed-title'), capitalize(WORDS[shown.kind].done));
    setText(document.getElementById('targets-trouble-title'), `Not ${WORDS[shown.kind].done}`);
}

function updateTarget(element, one, isRepeated) {
    const state = element.querySelector('.target-state');
    setText(element.querySelector('.target-name'), getName(one));
    setText(element.querySelector('.target-id'), isRepeated ? one.instanceId : '');
    setText(state, sayState(one));
    set(state.dataset, 'state', one.state);
    setText(element.querySelector('.why'), one.error || '');
}

function sayState(one) {
    const {done, undone} = WORDS[shown.kind];
    const isOpen = isRunning(shown);
    return {
        pending: isOpen && shown.state !== 'cancelled' ? 'to be asked' : 'never asked',
        requested: `asked${one.requestedAt ? ` at ${sayClock(one.requestedAt)}` : ''}, not yet seen ${done}`,
        confirmed: `${done}${one.confirmedAt ? `, seen at ${sayClock(one.confirmedAt)}` : ''}`,
        stillRunning: `${undone}${one.readAt ? `, seen ${one.status} at ${sayClock(one.readAt)}` : ''}`,
        failed: isOpen ? 'failed so far' : 'failed',
        skipped: 'skipped',
        unknown: 'not known',
    }[one.state] || one.state;
}

function renderButtons(isOpen) {
    const open = isOpen && shown.state !== 'cancelled';
    const again = isOpen || shown.success ? [] : getUnconfirmed();
    isCancelling &&= open;
    const hidden = {
        'operation-cancel': !open || isCancelling,
        'operation-again': !again.length,
        'operation-dismiss': isOpen,
    };
    for (const [name, isHidden] of Object.entries(hidden)) {
        set(panel.querySelector(`[data-do=${name}]`), 'hidden', isHidden);
    }
    set(document.getElementById('operation-cancel-confirm'), 'hidden', !isCancelling);
    // To end a stop of all is an admin's, as to begin one.
    set(panel.querySelector('[data-do=operation-cancel]').dataset, 'needs', shown.isWholeAccount ? 'admin' : 'operator');
    setText(panel.querySelector('[data-do=operation-again]'), `Try again for ${again.length}`);
    setText(document.getElementById('operation-others'), others ? `and ${others} more` : '');
    set(document.getElementById('operation-records'), 'hidden', false);
}

export function tick() {
    if (!shown || launch) {
        return;
    }
    setText(document.getElementById('operation-begun'), `Begun at ${sayClock(shown.createdAt)}`);
    setText(document.getElementById('operation-when'),
        isRunning(shown) ? `, ${sayAge(shown.createdAt)}.${sayDue()}` : `, ended ${sayAge(shown.finishedAt)}.`);
}

function sayDue() {
    if (!shown.deadlineAt) {
        return '';
    }
    const isOverdue = getNow() !== null && getNow() > Date.parse(shown.deadlineAt);
    return ` The verdict ${isOverdue ? 'has been overdue since' : 'is due by'} ${sayClock(shown.deadlineAt)}.`;
}

// --- Ending the asking

function confirmCancel(isRequested) {
    isCancelling = isRequested;
    refusal = '';
    render();
    panel.querySelector(`[data-do=${isRequested ? 'operation-cancel-now' : 'operation-cancel'}]`).focus();
}

async function cancel(button) {
    const {id} = shown;
    setDisabled(button, true);
    try {
        const operation = await send('POST', `/api/operations/${encodeURIComponent(id)}/cancel`);
        if (shown && shown.id === id) {
            isCancelling = false;
            take(operation);
        }
    } catch (error) {
        if (shown && shown.id === id) {
            refusal = `${error instanceof Refusal ? 'Not cancelled' : 'It is not known whether it was cancelled'}: ${error.message}`;
            isCancelling = false;
            render();
            await readShown();
        }
    } finally {
        setDisabled(button, false);
    }
}

// Returns whether it was a question of the panel's that Escape takes back.
export function takeBack(element) {
    if (isCancelling && element.closest('#operation-cancel-confirm')) {
        confirmCancel(false);
        return true;
    }
    return false;
}

export const doings = {
    'plan-retry': readPlan,
    'plan-close': () => dialog.close(),
    'plan-go': confirmPlan,
    'operation-cancel': () => confirmCancel(true),
    'operation-cancel-now': cancel,
    'operation-cancel-keep': () => confirmCancel(false),
    'operation-again': tryAgain,
    'operation-dismiss': dismiss,
};
