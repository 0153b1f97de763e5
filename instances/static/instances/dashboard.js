// The dashboard's behaviour: takes over the server's rows, keeps them fresh, acts. Text from outside goes in as
// textContent only; state that a link should carry stands in the address.

import {getNow, hasJumped} from './clock.js';
import {clone, count, sayAge, sayClock, sayMoment, set, setDisabled, setText, tell} from './elements.js';
import * as operations from './operations.js';
import {compareKeys, compareTexts, fold, getNaturalKey} from './order.js';
import {ask, LoggedOut, nameFailure, Outage, read} from './service.js';
import * as session from './session.js';
import {send} from './session.js';
import {canRequest, isMoving, needsStop} from './statuses.js';

const PAGE_SIZE = 100;
const REFRESH_SECONDS = 30;
const MOVING_SECONDS = 3;
// How long until it is noticed that a trouble is over; a second more or less, so that not all pages ask at once.
const TROUBLE_SECONDS = 3;
// A cleared cache is filled within seconds where the service synchronizes by itself.
const MAX_FILL_TRIES = 8;
const FILL_PAUSE_MS = 700;
// How long the message of an outage stays that no refresh has met.
const SHORT_OUTAGE_MS = 10000;
const DEFAULT_ORDERING = '-createdAt';
const FILTERS = ['search', 'group', 'region'];

const root = document.getElementById('dashboard');
const table = document.getElementById('instances');
const body = table.tBodies[0];
const filters = document.getElementById('filters');
const warnings = document.getElementById('warnings');
const nothing = document.getElementById('nothing');
const pager = document.getElementById('pager');

let instances = null; // as the API lists them; null until the first answer
let haystacks = new Map();
let etag = '';
let asOf = document.querySelector('#figure-sync time').dateTime;
let hasCopy = false;
let isSyncing = false;
let failingSince = null; // by the server's clock; null when it isn't known
let failure = '';
let isPaused = false;
let refreshing = null;
let timer = 0;
let nextAt = 0; // by the monotonic clock
let query = readAddress();
let confirming = ''; // the instance whose stop or restart waits for the second press
let confirmingAction = '';
const rows = new Map(); // id → its row on this page
const details = new Map(); // id → its open details
const asked = new Map(); // id → the action that was sent and not answered yet
const followed = new Set(); // ids that an action here has set moving
const messages = new Map(); // id → {words, isError, error}
let toldError = null; // the last that the status told
let cleared = ''; // what the status says of a cleared cache that is not filled yet
const selected = new Set(); // ids
let matching = []; // the ids that match the filter, in the order shown, on all pages
let lastSelected = ''; // where a range by Shift begins
let protections = new Map(); // id → what the API tells of its protection
let readingProtections = null;
const questions = new Map(); // id → 'protect' or 'unprotect', while its details ask about that

// --- The address

function readAddress() {
    const given = new URLSearchParams(location.search);
    const page = Number(given.get('page'));
    const group = given.get('group') || '';
    const ordering = given.get('ordering') || '';
    const columns = [...table.tHead.querySelectorAll('[data-column]')].map(heading => heading.dataset.column);
    return {
        search: given.get('search') || '',
        // What makes no sense counts as absent, as it does for the server.
        group: [...filters.elements.group.options].some(option => option.value === group) ? group : '',
        region: given.get('region') || '',
        ordering: columns.includes(ordering.replace(/^-/, '')) ? ordering : '',
        page: Number.isInteger(page) && page > 0 ? page : 1,
    };
}

function writeAddress(changes) {
    const wanted = new URLSearchParams();
    for (const [name, value] of Object.entries({...query, ...changes})) {
        if (value && !(name === 'page' && value === 1)) {
            wanted.set(name, value);
        }
    }
    return `?${wanted}`;
}

function change(changes, isStep) {
    const address = writeAddress(changes);
    history[isStep ? 'pushState' : 'replaceState'](null, '', address === '?' ? location.pathname : address);
    query = readAddress();
    render();
}

// --- Which rows

function getOrdering() {
    const ordering = query.ordering || DEFAULT_ORDERING;
    return {name: ordering.replace(/^-/, ''), isDescending: ordering.startsWith('-')};
}

function findMatches() {
    const search = fold(query.search);
    const region = fold(query.region);
    const found = instances.filter(one =>
        (!query.group || one.group === query.group) &&
        (!region || fold(one.region) === region || fold(one.clusterId) === region) &&
        (!search || haystacks.get(one.id).includes(search)));
    const {name, isDescending} = getOrdering();
    const keys = new Map(found.map(one => [one.id, getSortKey(one[name])]));
    found.sort((a, b) => {
        const order = compareKeys(keys.get(a.id), keys.get(b.id)) || compareTexts(a.id, b.id);
        return isDescending ? -order : order;
    });
    return found;
}

// What isn't known comes before all that is.
function getSortKey(value) {
    return typeof value === 'string' ? getNaturalKey(value) : [];
}

// --- Drawing: only what differs is touched

function render() {
    renderFilters();
    renderTitle();
    if (instances === null) {
        return;
    }
    const found = findMatches();
    const pages = Math.max(1, Math.ceil(found.length / PAGE_SIZE));
    const page = Math.min(query.page, pages);
    const shown = found.slice((page - 1) * PAGE_SIZE, page * PAGE_SIZE);
    const wanted = [];
    const kept = new Set(shown.map(one => one.id));
    for (const id of [...rows.keys()]) {
        if (!kept.has(id)) {
            rows.delete(id);
        }
    }
    for (const one of shown) {
        const row = rows.get(one.id) || makeRow(one.id);
        updateRow(row, one);
        wanted.push(row);
        const detail = details.get(one.id);
        if (detail) {
            updateDetail(detail, one);
            wanted.push(detail);
        }
    }
    arrange(wanted);
    setText(document.getElementById('matches'),
        found.length === instances.length ? '' : `${found.length} of ${instances.length} match`);
    matching = found.map(one => one.id);
    renderSelection(kept);
    renderPager(page, pages);
    renderNothing(found);
    renderFigures();
}

function arrange(wanted) {
    const focused = document.activeElement;
    wanted.forEach((element, index) => {
        if (body.children[index] !== element) {
            body.insertBefore(element, body.children[index] || null);
        }
    });
    while (body.children.length > wanted.length) {
        body.lastElementChild.remove();
    }
    if (focused && focused !== document.activeElement && focused.isConnected) {
        focused.focus({preventScroll: true});
    }
}

function makeRow(id) {
    const row = clone('row-template');
    row.dataset.id = id;
    rows.set(id, row);
    return row;
}

function updateRow(row, one) {
    const name = one.name || one.id;
    const action = asked.get(one.id);
    const status = row.querySelector('.status');
    setText(row.querySelector('bdi'), name);
    setText(status, action ? `${action} asked` : one.status);
    set(status.dataset, 'group', action ? 'requested' : one.group);
    setText(row.querySelector('.status-error'), one.statusError ? one.statusError.message || one.statusError.state : '');
    setText(row.querySelector('.region'), one.region);
    setText(row.querySelector('.gpu'), `${one.gpuNum ? `${one.gpuNum} × ` : ''}${one.productName}`);
    updateTime(row.querySelector('.created'), one.createdAt);
    const protection = protections.get(one.id);
    setText(row.querySelector('.protection'), protection ? `🔒 protected: ${protection.reason}` : '');
    const box = row.querySelector('.select input');
    set(box, 'checked', selected.has(one.id));
    set(box, 'ariaLabel', `Select ${name}`);
    updateButtons(row, one, name);
    updateMessage(row, one);
}

function updateButtons(row, one, name) {
    const buttons = row.querySelector('.buttons');
    const isBusy = asked.has(one.id);
    const actions = getActions(one);
    const wanted = `${actions} ${isBusy} ${name}`;
    const confirm = row.querySelector('.confirm');
    if (confirming === one.id && !actions.includes(confirmingAction)) {
        confirming = '';
    }
    set(confirm, 'hidden', confirming !== one.id);
    set(buttons, 'hidden', confirming === one.id);
    const isRestart = confirming === one.id && confirmingAction === 'restart';
    setText(confirm.querySelector('span'), isRestart
        ? `Restart ${name}? This ends the job that runs on it.`
        : `Stop ${name}? Its data is kept 7 days at most, and a restart is not guaranteed: the GPU may be gone.`);
    setText(confirm.querySelector('[data-do=confirm-now]'), isRestart ? 'Restart it' : 'Stop it');
    set(confirm, 'ariaLabel', isRestart ? 'Restart it?' : 'Stop it?');
    if (buttons.dataset.shown === wanted) {
        return;
    }
    buttons.dataset.shown = wanted;
    const focusedAction = buttons.contains(document.activeElement) ? document.activeElement.dataset.action : '';
    buttons.replaceChildren(...actions.map(action => {
        const button = clone('button-template');
        button.dataset.do = action === 'start' ? 'act' : 'confirm';
        button.dataset.action = action;
        button.textContent = action[0].toUpperCase() + action.slice(1);
        button.setAttribute('aria-label', `${button.textContent} ${name}`);
        if (isBusy) {
            button.setAttribute('aria-disabled', 'true');
        }
        return button;
    }));
    if (focusedAction) {
        (buttons.querySelector(`[data-action="${focusedAction}"]`) || row.querySelector('.name')).focus({preventScroll: true});
    }
}

function isPossible(kind, one) {
    return canRequest(kind, one) && (kind === 'start' || !protections.has(one.id));
}

function countSelected(kind) {
    return instances.filter(one => selected.has(one.id) && isPossible(kind, one)).length;
}

function countStoppable() {
    return instances && hasCopy
        ? instances.filter(one => isPossible('stop', one) && needsStop(one)).length : null;
}

function getActions(one) {
    return protections.has(one.id) ? one.actions.filter(action => action === 'start') : one.actions;
}

function updateMessage(row, one) {
    if (followed.has(one.id) && !asked.has(one.id) && !isMoving(one)) {
        followed.delete(one.id);
        messages.set(one.id, {words: `Seen ${one.status}${getNow() ? ` at ${sayClock(getNow())}` : ''}.`});
    }
    const message = messages.get(one.id);
    const line = row.querySelector('.message');
    setText(line, message ? message.words : '');
    line.classList.toggle('is-error', Boolean(message && message.isError));
}

function updateDetail(detail, one) {
    // As many as the visitor's role sees: one more would make the table lay out a column that isn't there.
    const columns = [...table.tHead.rows[0].cells].filter(cell => getComputedStyle(cell).display !== 'none');
    set(detail.cells[0], 'colSpan', columns.length);
    updateProtection(detail, one);
    const shown = JSON.stringify(one);
    if (detail.dataset.shown === shown) {
        return;
    }
    detail.dataset.shown = shown;
    const list = detail.querySelector('dl');
    list.replaceChildren();
    addDetail(list, 'Id', one.id, true);
    addDetail(list, 'Product', `${one.productName} (${one.productId})`);
    addDetail(list, 'CPUs, memory', `${one.cpuNum ?? '?'} CPUs, ${one.memoryGb ?? '?'} GB`);
    addDetail(list, 'Image', one.imageUrl, true);
    addDetail(list, 'Disk', one.rootfsSizeGb === null ? '?' : `${one.rootfsSizeGb} GB`);
    addDetail(list, 'Region', `${one.region} (${one.clusterId})`);
    addDetail(list, 'Billing', [one.billingMode, one.spotStatus].filter(Boolean).join(', ') || '?');
    for (const mapping of one.portMappings) {
        addDetail(list, `Port ${mapping.port ?? '?'} (${mapping.type})`, mapping.endpoint, true);
    }
    if (!one.portMappings.length) {
        addDetail(list, 'Ports', 'none');
    }
    addDetail(list, 'Created', say(one.createdAt));
    addDetail(list, 'Last started', say(one.lastStartedAt));
    addDetail(list, 'Last stopped', say(one.lastStoppedAt));
    addDetail(list, 'Ends', one.endTime ? say(one.endTime) : 'not by itself');
    addDetail(list, 'Last changed', say(one.changedAt));
    if (one.statusError) {
        addDetail(list, "Novita's error", `${one.statusError.state} ${one.statusError.message}`);
    }
}

function updateProtection(detail, one) {
    const protection = protections.get(one.id);
    const name = one.name || one.id;
    const question = questions.get(one.id);
    if (question === (protection ? 'protect' : 'unprotect')) {
        questions.delete(one.id);
    }
    const focused = detail.contains(document.activeElement) ? document.activeElement : null;
    const since = protection ? ` by ${protection.protectedBy || 'somebody'} at ${new Date(protection.protectedAt).toLocaleString()}` : '';
    setText(detail.querySelector('.protected-words'), protection
        ? `Protected${since}: ${protection.reason}`
        : 'Not protected: a stop of all stops it too.');
    const protect = detail.querySelector('[data-do=protect]');
    const unprotect = detail.querySelector('[data-do=unprotect]');
    set(protect, 'ariaLabel', `Protect ${name}…`);
    set(unprotect, 'ariaLabel', `Remove protection of ${name}`);
    set(protect, 'hidden', Boolean(protection || questions.has(one.id)));
    set(unprotect, 'hidden', !protection || questions.has(one.id));
    set(detail.querySelector('form'), 'hidden', questions.get(one.id) !== 'protect');
    set(detail.querySelector('.confirm'), 'hidden', questions.get(one.id) !== 'unprotect');
    setText(detail.querySelector('.confirm span'), `Remove the protection of ${name}? Stop and restart are possible again, and a stop of all stops it.`);
    if (focused && focused.closest('[hidden]')) {
        detail.querySelector(`[data-do=${protection ? 'unprotect' : 'protect'}]`).focus({preventScroll: true});
    }
}

function addDetail(list, title, text, canBeCopied) {
    const term = document.createElement('dt');
    const value = document.createElement('dd');
    const words = document.createElement('bdi');
    term.textContent = title;
    words.textContent = text || '–';
    value.append(words);
    if (canBeCopied && text) {
        const button = clone('copy-template');
        button.setAttribute('aria-label', `Copy ${title}`);
        value.append(' ', button);
    }
    list.append(term, value);
}

function renderFilters() {
    for (const name of FILTERS) {
        const field = filters.elements[name];
        if (instances !== null) {
            ({search: () => {}, group: renderGroups, region: renderRegions})[name](field);
        }
        if (field.value !== query[name] && document.activeElement !== field) {
            field.value = query[name];
        }
    }
    filters.querySelector('[data-do=clear-filters]').hidden = !FILTERS.some(name => query[name]);
    const {name, isDescending} = getOrdering();
    for (const heading of table.tHead.querySelectorAll('[data-column]')) {
        const sort = heading.dataset.column !== name ? 'none' : isDescending ? 'descending' : 'ascending';
        heading.setAttribute('aria-sort', sort);
        const next = sort === 'ascending' ? `-${heading.dataset.column}` : heading.dataset.column;
        heading.querySelector('a').href = writeAddress({ordering: next, page: 1});
        heading.dataset.next = next;
    }
}

function renderGroups(field) {
    for (const option of [...field.options].filter(one => one.value)) {
        setText(option, `${option.value} (${instances.filter(one => one.group === option.value).length})`);
    }
}

function renderRegions(field) {
    const regions = new Set(instances.map(one => one.region).filter(Boolean));
    if (query.region) {
        regions.add(query.region);
    }
    const order = (a, b) => compareKeys(getNaturalKey(a), getNaturalKey(b)) || compareTexts(a, b);
    const wanted = ['', ...[...regions].sort(order)];
    if (wanted.join('\n') !== [...field.options].map(option => option.value).join('\n')) {
        field.replaceChildren(...wanted.map(region => new Option(region || 'all', region)));
        field.value = query.region;
    }
}

function renderSelection(onPage) {
    const number = selected.size;
    const matches = new Set(matching);
    const chosen = instances.filter(one => selected.has(one.id));
    const hidden = chosen.filter(one => !matches.has(one.id)).length;
    const elsewhere = chosen.filter(one => matches.has(one.id) && !onPage.has(one.id)).length;
    setText(document.getElementById('selection-words'), !number ? '' : [
        `${number} selected`,
        hidden && `${hidden} of them hidden by the filter`,
        elsewhere && `${elsewhere} on other pages`,
    ].filter(Boolean).join(', '));
    const bar = document.getElementById('selection');
    bar.classList.toggle('is-shown', number > 0);
    set(document.getElementById('selection-buttons'), 'hidden', !number);
    for (const button of bar.querySelectorAll('[data-kind]')) {
        const {kind} = button.dataset;
        const possible = countSelected(kind);
        const words = kind[0].toUpperCase() + kind.slice(1);
        setText(button, `${words} ${possible}`);
        set(button, 'title', possible ? '' : `None of the selected can be asked to ${kind} now.`);
        setDisabled(button, !possible);
    }
    const all = document.getElementById('select-all');
    const found = matching.filter(id => selected.has(id)).length;
    set(all, 'hidden', false);
    set(all, 'checked', found > 0 && found === matching.length);
    set(all, 'indeterminate', found > 0 && found < matching.length);
    set(all, 'ariaLabel', `Select all ${matching.length} that match`);
}

function renderPager(page, pages) {
    const wanted = `${page} ${pages}`;
    if (pager.dataset.shown === wanted) {
        return;
    }
    const hadFocus = pager.contains(document.activeElement);
    pager.dataset.shown = wanted;
    pager.replaceChildren();
    if (pages === 1) {
        return;
    }
    const words = document.createElement('span');
    words.textContent = `Page ${page} of ${pages}`;
    const parts = [words];
    if (page > 1) {
        parts.unshift(makePageLink('Previous', page - 1));
    }
    if (page < pages) {
        parts.push(makePageLink('Next', page + 1));
    }
    pager.append(...parts);
    if (hadFocus) {
        (pager.querySelector('a:last-of-type') || words).focus();
    }
}

function makePageLink(title, page) {
    const link = document.createElement('a');
    link.textContent = title;
    link.href = writeAddress({page});
    link.dataset.page = page;
    return link;
}

function renderNothing(found) {
    const kind = found.length ? '' : !hasCopy ? 'emptied' : !instances.length ? 'none' : 'no-match';
    const shown = kind === 'emptied' ? `${kind} ${isSyncing}` : kind;
    if (nothing.dataset.shown === shown) {
        return;
    }
    nothing.dataset.shown = shown;
    nothing.replaceChildren();
    if (!kind) {
        return;
    }
    const words = document.createElement('p');
    words.textContent = {
        emptied: isSyncing ? 'The cache is empty. Synchronizing …' : 'The cache is empty. A synchronization fills it.',
        none: 'There are no instances in the account.',
        'no-match': 'No instance matches.',
    }[kind];
    nothing.append(words);
    const cure = {emptied: ['sync', 'Sync now'], 'no-match': ['clear-filters', 'Clear filters']}[kind];
    if (cure) {
        const button = clone('button-template');
        [button.dataset.do, button.textContent] = cure;
        nothing.append(button);
    }
}

function renderFigures() {
    const [running, starting] = ['running', 'starting'].map(group => instances.filter(one => one.group === group).length);
    setText(document.getElementById('figure-total'), hasCopy ? String(instances.length) : '–');
    setText(document.getElementById('figure-running'), hasCopy ? String(running) : '–');
    const startingFigure = document.getElementById('figure-starting');
    setText(startingFigure, hasCopy && starting ? ` · ${starting} starting` : '');
    set(startingFigure, 'hidden', !startingFigure.textContent);
}

function renderTitle() {
    const running = hasCopy && instances ? instances.filter(one => one.group === 'running').length : null;
    const hasTrouble = Boolean(failure) || Boolean(warnings.querySelector('p')) || operations.hasTrouble();
    const words = operations.getPageTitle();
    document.title = `${hasTrouble ? '⚠ ' : ''}${words ? `${words} – ` : running !== null ? `(${running}) ` : ''}Novita panel`;
    drawIcon(running, hasTrouble);
}

function drawIcon(running, hasTrouble) {
    const icon = document.querySelector('link[rel=icon]');
    const wanted = `${running} ${hasTrouble}`;
    if (icon.dataset.shown === wanted) {
        return;
    }
    icon.dataset.shown = wanted;
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 64;
    const pen = canvas.getContext('2d');
    pen.fillStyle = hasTrouble ? '#ba2121' : running ? '#1b6b3a' : '#417690';
    pen.beginPath();
    pen.arc(32, 32, 32, 0, 2 * Math.PI);
    pen.fill();
    pen.fillStyle = '#fff';
    pen.font = 'bold 38px sans-serif';
    pen.textAlign = 'center';
    pen.textBaseline = 'middle';
    pen.fillText(running === null ? '?' : running > 99 ? '99' : String(running), 32, 35);
    icon.href = canvas.toDataURL();
}

function renderWarnings(words) {
    renderBanners(document.getElementById('failure'), failure ? [failure] : []);
    renderBanners(document.getElementById('warning'), words);
    table.classList.toggle('is-old', Boolean(failure));
}

// A banner that stays is not touched: each is announced once, when it comes.
function renderBanners(region, words) {
    const shown = new Map([...region.children].map(banner => [banner.textContent, banner]));
    for (const [text, banner] of shown) {
        if (!words.includes(text)) {
            banner.remove();
        }
    }
    for (const text of words) {
        if (!shown.has(text)) {
            const banner = clone('banner-template');
            banner.textContent = text;
            region.append(banner);
        }
    }
}

// --- Times

function say(time) {
    return time ? `${sayMoment(time)} (${sayAge(time)})` : 'never';
}

function updateTime(element, time) {
    setText(element, time ? sayAge(time) : '–');
    if (element.dateTime !== (time || '')) {
        element.dateTime = time || '';
        element.title = time ? sayMoment(time) : '';
    }
}

function tick() {
    if (hasJumped() && !document.hidden) {
        // The answer says what time it is.
        isPaused ? session.renew() : refresh();
    }
    const sync = document.querySelector('#figure-sync time');
    set(sync, 'dateTime', asOf);
    setText(sync, asOf ? sayAge(asOf) : isSyncing ? 'synchronizing …' : 'unknown');
    set(sync, 'title', asOf ? sayMoment(asOf) : '');
    const seconds = Math.max(0, Math.ceil((nextAt - performance.now()) / 1000));
    setText(document.getElementById('next-refresh'),
        isPaused ? 'Refresh is paused' : refreshing ? 'Refreshing …' : `Next refresh in ${seconds} s`);
    operations.tick();
}

// --- Asking the service

function refresh() {
    refreshing ||= readAll().finally(() => {
        refreshing = null;
        schedule();
    });
    tick();
    return refreshing;
}

async function readAll() {
    clearTimeout(timer);
    operations.look();
    readProtections();
    session.check();
    let words = [];
    try {
        const [listing, health] = await Promise.all([
            ask('/api/instances', {headers: etag ? {'If-None-Match': etag} : {}}),
            ask('/health'),
        ]);
        const state = await health.json();
        words = state.warnings;
        setText(document.getElementById('figure-redis'), state.services.redis);
        if (listing.status !== 304 && !listing.ok) {
            throw new Error((await listing.json()).message);
        }
        hasCopy = listing.headers.has('Data-As-Of');
        // A cleared cache doesn't change when it was last synchronized.
        asOf = listing.headers.get('Data-As-Of') || state.sync.lastSync || '';
        isSyncing = state.sync.isLocked;
        if (listing.status !== 304) {
            take((await listing.json()).instances);
            etag = listing.headers.get('ETag') || '';
        }
        forgetOutages(state.services, Boolean(failure));
        tellFilled();
        failingSince = null;
        failure = '';
    } catch (error) {
        if (!words.length) {
            setText(document.getElementById('figure-redis'), 'unknown');
        }
        isSyncing = false;
        failingSince ||= getNow();
        failure = sayFailure(error);
        if (error instanceof LoggedOut) {
            // Its notice has the way to log in.
            session.renew();
        }
        // Redis down says so itself, once.
        words = words.filter(text => !failure.startsWith(text));
    }
    renderWarnings(words);
    render();
}

// The messages of what failed by an outage that is over.
function forgetOutages(services, hasFailed) {
    const isOver = error => error instanceof Outage && (!error.part || services[error.part] === 'up')
        && (hasFailed || performance.now() - error.at > SHORT_OUTAGE_MS);
    if (isOver(toldError)) {
        if (document.getElementById('status-error').textContent === toldError.message) {
            tell('');
        }
        toldError = null;
    }
    for (const [id, {error}] of messages) {
        // That Novita did not answer is the result of the action, also when it answers others.
        if (isOver(error) && error.part !== 'novita') {
            messages.delete(id);
        }
    }
}

function tellFilled() {
    if (hasCopy && cleared) {
        if (document.getElementById('status-words').textContent === sayCleared(false)) {
            tell(sayCleared(true));
        }
        cleared = '';
    }
}

function sayCleared(isFilled) {
    return isFilled ? `${cleared}, and synchronized again: ${count(instances.length)}.`
        : `${cleared}. The next synchronization fills it.`;
}

function sayFailure(error) {
    const since = failingSince ? sayClock(failingSince) : '';
    if (error instanceof LoggedOut) {
        return `Not refreshed${since && ` since ${since}`}: you are logged out.`;
    }
    const age = instances === null ? '' : ` What is shown is older${since && ' than that'}.`;
    return `${nameFailure(error)}${since && ` Since ${since}.`}${age}`;
}

function readProtections() {
    readingProtections ||= read('/api/protections').then(result => {
        const told = new Map(result.protections.map(one => [one.instanceId, one]));
        if (JSON.stringify([...told]) !== JSON.stringify([...protections])) {
            protections = told;
            render();
        }
    }, () => {
        // The last known stay; what can't be read is told by the listing's failure or the health's warnings.
    }).finally(() => {
        readingProtections = null;
    });
    return readingProtections;
}

function take(listed) {
    instances = listed;
    haystacks = new Map(listed.map(one => [
        one.id,
        fold([one.name, one.id, one.region, one.clusterId, one.productName, one.productId].join('\n')),
    ]));
    const known = new Set(haystacks.keys());
    for (const memory of [details, messages, followed, selected, questions]) {
        for (const id of [...memory.keys()]) {
            if (!known.has(id)) {
                memory.delete(id);
            }
        }
    }
}

function schedule() {
    clearTimeout(timer);
    if (isPaused || document.hidden) {
        tick();
        return;
    }
    const isBusy = instances !== null && (!hasCopy || instances.some(isMoving));
    const isInTrouble = (failure && !session.isLost()) || warnings.querySelector('p') || getNow() === null;
    const seconds = isInTrouble ? TROUBLE_SECONDS + Math.random() : isBusy ? MOVING_SECONDS : REFRESH_SECONDS;
    nextAt = performance.now() + seconds * 1000;
    timer = setTimeout(refresh, seconds * 1000);
    tick();
}

// --- Acting

async function run(button, words, work) {
    if (button.getAttribute('aria-disabled') === 'true') {
        return;
    }
    button.setAttribute('aria-disabled', 'true');
    button.setAttribute('aria-busy', 'true');
    tell(words);
    try {
        tell(await work());
    } catch (error) {
        toldError = error;
        tell(error.message, true);
    } finally {
        button.removeAttribute('aria-disabled');
        button.removeAttribute('aria-busy');
    }
}

async function refreshNow() {
    // A refresh that is under way may have read the list before the button was pressed.
    await refreshing;
    await refresh();
    if (failure) {
        // The banner says why.
        throw new Outage('Not refreshed.', '');
    }
    return `Refreshed: ${count(instances.length)}.`;
}

async function sync() {
    // Refreshed after a failure too: the banner then tells how long it has been failing.
    const result = await send('POST', '/api/instances/sync').finally(refresh);
    const counts = {
        new: result.added,
        changed: result.changed,
        gone: result.deleted,
        'not confirmed as gone': result.unconfirmed,
        unchanged: result.novitaInstances - result.added - result.changed,
    };
    const words = Object.entries(counts).filter(([, number]) => number > 0).map(([word, number]) => `${number} ${word}`);
    return `${count(result.novitaInstances)}: ${[...words, `${(result.duration / 1000).toFixed(1)} s`].join(', ')}. ${result.errors.join(' ')}`;
}

async function clear() {
    const result = await send('POST', '/api/cache/clear');
    tell(`${result.message}. Waiting for the next synchronization …`);
    // One that is under way may have read the list before it was cleared.
    await refreshing;
    await refresh();
    for (let tries = 0; !hasCopy && tries < MAX_FILL_TRIES; tries += 1) {
        await new Promise(resolve => setTimeout(resolve, FILL_PAUSE_MS));
        await refresh();
    }
    cleared = result.message;
    return sayCleared(hasCopy);
}

async function act(action, id) {
    if (asked.has(id)) {
        return;
    }
    confirming = '';
    asked.set(id, action);
    messages.set(id, {words: `Asking Novita to ${action} it …`});
    render();
    try {
        const result = await send('POST', `/api/instances/${encodeURIComponent(id)}/${action}`);
        messages.set(id, {words: `${result.message}.`});
        followed.add(id);
    } catch (error) {
        messages.set(id, {words: error.message, isError: true, error});
    }
    await refresh();
    asked.delete(id);
    // One that was under way may have been read before the action was.
    await refresh();
}

function open(row) {
    const id = row.dataset.id;
    const isOpen = details.delete(id);
    if (!isOpen) {
        const detail = clone('detail-template');
        detail.dataset.id = id;
        details.set(id, detail);
    }
    row.querySelector('.name').setAttribute('aria-expanded', String(!isOpen));
    render();
}

function showClear(isShown) {
    const confirm = document.getElementById('clear-confirm');
    confirm.hidden = !isShown;
    confirm.querySelector('span').textContent =
        `Clear the copy of ${count((instances || []).length)}? The page stays empty until the next synchronization.`;
    (isShown ? confirm.querySelector('button') : root.querySelector('[data-do=clear]')).focus();
}

function confirmAction(action, id) {
    confirming = id;
    confirmingAction = action;
    render();
    rows.get(id).querySelector('[data-do=confirm-now]').focus();
}

function takeBack(id) {
    confirming = '';
    render();
    (rows.get(id).querySelector(`[data-action=${confirmingAction}]`) || rows.get(id).querySelector('.name')).focus();
}

// --- The selection

function selectOne(box, row, event) {
    const {id} = row.dataset;
    const [from, to] = [matching.indexOf(lastSelected), matching.indexOf(id)].sort((a, b) => a - b);
    const ids = event.shiftKey && from >= 0 ? matching.slice(from, to + 1) : [id];
    for (const one of ids) {
        selected[box.checked ? 'add' : 'delete'](one);
    }
    lastSelected = id;
    render();
}

function selectAll(box) {
    for (const id of matching) {
        selected[box.checked ? 'add' : 'delete'](id);
    }
    render();
}

function clearSelection() {
    selected.clear();
    render();
    document.getElementById('select-all').focus();
}

// --- Protecting

function confirmProtection(row, question) {
    const {id} = row.dataset;
    const asked = questions.get(id);
    const detail = details.get(id);
    if (question) {
        questions.set(id, question);
    } else {
        questions.delete(id);
    }
    render();
    detail.querySelector({protect: 'input', unprotect: '[data-do=unprotect-now]'}[question] || `[data-do=${asked}]`).focus();
}

async function changeProtection(row, method, reason) {
    const {id} = row.dataset;
    const button = row.querySelector(`[data-busy=${method}]`);
    if (button.getAttribute('aria-disabled') === 'true') {
        return;
    }
    setDisabled(button, true);
    try {
        const path = `/api/instances/${encodeURIComponent(id)}/protect`;
        const result = await send(method, path, reason ? {reason} : undefined);
        messages.set(id, {words: `${result.message.replace(/\.$/, '')}.`});
        row.querySelector('form').reset();
    } catch (error) {
        messages.set(id, {words: error.message, isError: true, error});
    }
    setDisabled(button, false);
    // One that was under way may have been read before the change was.
    await readingProtections;
    await readProtections();
    render();
}

function pause(button) {
    isPaused = !isPaused;
    button.setAttribute('aria-pressed', String(isPaused));
    schedule();
}

function clearFilters() {
    filters.elements.search.value = '';
    change({search: '', group: '', region: '', page: 1}, true);
    filters.elements.search.focus();
}

async function copy(button) {
    const text = button.parentElement.querySelector('bdi').textContent;
    try {
        await navigator.clipboard.writeText(text);
        tell(`Copied: ${text}`);
    } catch {
        getSelection().selectAllChildren(button.parentElement.querySelector('bdi'));
        tell('Copying is not allowed here; the text is selected.', true);
    }
}

function follow(link) {
    const heading = link.closest('[data-column]');
    if (heading) {
        change({ordering: heading.dataset.next, page: 1}, true);
    } else if (link.dataset.page) {
        change({page: Number(link.dataset.page)}, true);
    } else {
        change({search: '', region: '', group: link.id.replace('figure-', ''), page: 1}, true);
    }
}

const doings = {
    refresh: button => run(button, 'Refreshing …', refreshNow),
    sync: button => run(button, 'Synchronizing with Novita.ai …', sync),
    clear: () => showClear(true),
    'clear-now': () => {
        showClear(false);
        run(root.querySelector('[data-do=clear]'), 'Clearing the cache …', clear);
    },
    'clear-cancel': () => showClear(false),
    pause,
    'clear-filters': clearFilters,
    open: (button, row) => open(row),
    act: (button, row) => act(button.dataset.action, row.dataset.id),
    confirm: (button, row) => confirmAction(button.dataset.action, row.dataset.id),
    'confirm-now': (button, row) => {
        takeBack(row.dataset.id);
        act(confirmingAction, row.dataset.id);
    },
    'confirm-cancel': (button, row) => takeBack(row.dataset.id),
    copy,
    select: selectOne,
    'select-all': selectAll,
    'clear-selection': clearSelection,
    'stop-all': () => operations.preview('stop', null, countStoppable()),
    'act-on-selected': button => operations.preview(button.dataset.kind, [...selected], countSelected(button.dataset.kind)),
    protect: (button, row) => confirmProtection(row, 'protect'),
    'protect-now': (form, row) => {
        const reason = form.elements.reason.value.trim();
        if (reason) {
            changeProtection(row, 'POST', reason);
        } else {
            form.elements.reason.focus();
            messages.set(row.dataset.id, {words: 'A protection needs a reason.', isError: true});
            render();
        }
    },
    unprotect: (button, row) => confirmProtection(row, 'unprotect'),
    'unprotect-now': (button, row) => changeProtection(row, 'DELETE'),
    'protection-cancel': (button, row) => confirmProtection(row, ''),
    ...operations.doings,
};

root.addEventListener('click', event => {
    const button = event.target.closest('[data-do]');
    const link = event.target.closest('th[data-column] a, #pager a, #figure-running, #figure-starting');
    if (button && button.getAttribute('aria-disabled') !== 'true') {
        doings[button.dataset.do](button, button.closest('tr'), event);
    } else if (link && !event.metaKey && !event.ctrlKey && !event.shiftKey && instances !== null) {
        event.preventDefault();
        follow(link);
    }
});
root.addEventListener('keydown', event => {
    // In a dialog Escape closes that, by the browser.
    if (event.key !== 'Escape' || event.target.closest('dialog') || operations.takeBack(event.target)) {
        return;
    }
    const detail = event.target.closest('tr.detail');
    if (detail && questions.has(detail.dataset.id)) {
        confirmProtection(detail, '');
    } else if (confirming && event.target.closest('.confirm')) {
        takeBack(confirming);
    } else if (!document.getElementById('clear-confirm').hidden) {
        showClear(false);
    }
});
filters.addEventListener('input', event => change({[event.target.name]: event.target.value, page: 1}, false));
root.addEventListener('submit', event => {
    event.preventDefault();
    const doing = doings[event.target.dataset.submit];
    if (doing) {
        doing(event.target, event.target.closest('tr'));
    }
});
root.addEventListener('operation', event => {
    renderTitle();
    if (event.detail.isOver) {
        refresh();
    }
});
addEventListener('popstate', () => {
    query = readAddress();
    for (const name of FILTERS) {
        filters.elements[name].value = query[name];
    }
    render();
});
document.addEventListener('visibilitychange', () => {
    if (document.hidden) {
        clearTimeout(timer);
    } else if (!isPaused) {
        refresh();
    }
});

for (const element of document.querySelectorAll('.needs-script')) {
    element.hidden = false;
}
renderFilters();
for (const element of document.querySelectorAll('.without-script')) {
    element.hidden = true;
}
setInterval(tick, 1000);
refresh();
