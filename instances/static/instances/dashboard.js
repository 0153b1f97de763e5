// The dashboard: makes the features, gives each what it needs of the others, and hands presses and keys to them.

import {hasBanners, showBanners} from './banners.js';
import {createBrakes} from './brakes.js';
import {createCards} from './cards/cards.js';
import {createFragments} from './cards/fragment.js';
import {createConfirm} from './confirm.js';
import {isDisabled} from './elements.js';
import {createFindings} from './list/findings.js';
import {createInventory} from './list/inventory.js';
import {createKeyboard} from './list/keyboard.js';
import {createList} from './list/list.js';
import {createProtection} from './list/protection.js';
import {createRowActions} from './list/row-actions.js';
import {createRowMessages} from './list/row-messages.js';
import {createRows} from './list/rows.js';
import {createSelection} from './list/selection.js';
import {createLive} from './live.js';
import {createLiveState} from './live-state.js';
import {loadLater} from './loading.js';
import {watchMenus} from './menus.js';
import {createOperations} from './operation/operations.js';
import {createOverview} from './overview.js';
import {isOver, LoggedOut} from './service.js';
import * as session from './session.js';
import {createStatusLine} from './status-line.js';
import {canRequest} from './statuses.js';
import {createStopAll} from './stop-all.js';
import {showTitle} from './title.js';
import {createToolbar} from './toolbar.js';

const root = document.getElementById('dashboard');
const table = document.getElementById('instances');

const statusLine = createStatusLine();
const overview = createOverview();
const inventory = createInventory({overview, asOf: document.querySelector('#figure-sync time').dateTime});
const cards = createCards({inventory});
const fragments = createFragments();
const live = createLive({
    read: readService,
    hasTrouble: () => Boolean(inventory.failure && !session.isLost()),
    hasFailed: () => inventory.failure !== null,
    isOutage: () => overview.value?.health.services.novita === 'down',
    onTick: tick,
});
const ask = createConfirm();
const toolbar = createToolbar({ask, inventory, live, statusLine});
const brakes = createBrakes({ask, overview, statusLine, refreshAnew: live.refreshAnew});
const liveState = createLiveState({inventory, overview});
const operations = createOperations({root, ask, onChange: renderTitle, refresh: live.refresh});

const list = createList({
    table,
    form: document.getElementById('filters'),
    inventory,
    getRows: () => rows,
    getSelection: () => selection,
    getRedis: () => overview.isReachable ? overview.value.health.services.redis : 'unknown',
    onShown: renderDetails,
});
const {render} = list;
const selection = createSelection({table, inventory, canRequest: isPossible, preview: operations.preview, render});
const messages = createRowMessages({
    getRow: findPlace,
    getName: id => inventory.get(id)?.name || id,
    render,
});
const protection = createProtection();
const stopAll = createStopAll({inventory, overview, isProtected: id => !protection.permits('stop', id)});
const rowActions = createRowActions({
    ask,
    inventory,
    messages,
    protection,
    getRow: findPlace,
    refresh: live.refresh,
    render,
});
const findings = createFindings();
const rows = createRows({
    table,
    getRequest: rowActions.getRequest,
    // Messages come last: an action may have something new to say.
    parts: [protection.updateRow, findings.updateRow, selection.updateRow, rowActions.update, messages.update],
});

const actions = {
    ...toolbar.actions,
    ...brakes.actions,
    ...statusLine.actions,
    ...live.actions,
    ...list.actions,
    ...rowActions.actions,
    ...messages.actions,
    ...selection.actions,
    ...operations.actions,
    'stop-all': () => operations.preview('stop', null, stopAll.count()),
};
let later = null; // the parts of later.js, once one of them was used

// An action that is not known yet is one of later.js.
function run(name, ...given) {
    if (actions[name]) {
        actions[name](...given);
    } else {
        loadParts(() => actions[name](...given), () => {});
    }
}

async function loadParts(use, giveUp) {
    const began = document.activeElement;
    try {
        const {createParts} = await loadLater();
        later ||= createParts({
            address: list.address,
            getSelected: () => selection.listIds(),
            refreshAnew: live.refreshAnew,
            ...{ask, findings, findPlace, inventory, messages, overview, protection, render, rowActions, rows, statusLine},
        });
        Object.assign(actions, later.actions);
    } catch (error) {
        statusLine.tell(error.message, true);
        giveUp();
        return;
    }
    const current = document.activeElement;
    use();
    // What opens takes the focus, but not from somebody who went on to something else while it was loaded.
    if (current !== began && current !== document.body) {
        current.focus({preventScroll: true});
    }
}

// Opens, updates or closes the drawer of an instance as the address says.
function renderDetails() {
    if (later) {
        later.details.render();
    } else if (list.address.query.instance) {
        loadParts(() => later.details.render(), () => list.address.change({instance: ''}, {isStep: false}));
    }
}

// Returns where an instance is shown to the visitor: in the drawer that has the focus, or in its row.
function findPlace(id) {
    return later?.details.getFocused(id) || rows.get(id);
}

function isPossible(kind, one) {
    return canRequest(kind, one) && protection.permits(kind, one.id);
}

function renderTitle() {
    const {failure, hasCopy, instances} = inventory;
    showTitle({
        running: hasCopy && instances ? inventory.countGroup('running') : null,
        operation: operations.getPageTitle(),
        hasTrouble: Boolean(failure) || hasBanners() || operations.hasTrouble(),
    });
}

function tick(isPaused) {
    cards.tick();
    liveState.tick(isPaused);
    operations.tick();
}

async function readService(isWhole) {
    if (isWhole) {
        session.check();
    }
    const hadFailed = inventory.failure !== null;
    const isNew = await inventory.read(isWhole);
    if (isNew || isWhole) {
        show(hadFailed);
    }
}

// Shows what was read, or why it could not be.
function show(hadFailed) {
    const health = overview.isReachable ? overview.value.health : null;
    cards.showRedis(health ? health.services.redis : 'unknown');
    if (health) {
        operations.take(overview.value.operations);
        fragments.follow(overview.value.operations);
        protection.take(overview.value.protections);
        findings.take(overview.value);
    }
    if (!inventory.failure) {
        forget(health.services, hadFailed);
    } else if (inventory.failure.error instanceof LoggedOut) {
        // Its notice has the way to log in.
        session.renew();
    }
    brakes.render();
    showBanners(inventory, health ? [...health.warnings, ...brakes.listNotices(), ...findings.listNotices()] : []);
    rows.showAge(inventory.failure !== null || Boolean(health?.sync.isStale));
    render();
    renderTitle();
    if (inventory.instances !== null) {
        stopAll.render();
        operations.follow(stopAll.count());
        cards.render();
    }
}

// Forgets instances that are gone, and the messages of an outage that is over.
function forget(services, hadFailed) {
    for (const feature of [messages, rowActions, selection]) {
        feature.forgetUnknown(inventory.has);
    }
    statusLine.forgetError(error => isOver(error, services, hadFailed));
    // That Novita did not answer is the result of the action, also when it answers others.
    messages.forget(error => isOver(error, services, hadFailed) && error.part !== 'novita');
    toolbar.tellFilled();
}

root.addEventListener('click', event => {
    const button = event.target.closest('[data-do]');
    const link = event.target.closest('#content a[href]');
    if (button && !isDisabled(button)) {
        run(button.dataset.do, button, button.closest('[data-id]'), event);
    } else if (link && !event.metaKey && !event.ctrlKey && !event.shiftKey && inventory.instances !== null && list.follow(link)) {
        event.preventDefault();
    }
});
root.addEventListener('submit', event => {
    // The browser sends the form that logs out.
    if (event.target.hasAttribute('action')) {
        return;
    }
    event.preventDefault();
    actions[event.target.dataset.submit]?.(event.target, event.target.closest('[data-id]'));
});
root.addEventListener('keydown', event => {
    // In a dialog Escape closes that, by the browser.
    if (event.key === 'Escape' && !event.target.closest('dialog')
        && [list, later?.annotation, selection].some(feature => feature?.takeBack(event.target))) {
        // The drawer stays open.
        event.preventDefault();
    }
});

root.dataset.hasScript = '';
for (const element of document.querySelectorAll('.needs-script')) {
    element.hidden = false;
}
render();
for (const element of document.querySelectorAll('.without-script')) {
    element.hidden = true;
}
// The rows come from the browser's cache or from the API; the server needn't send them with the next page.
// biome-ignore lint/suspicious/noDocumentCookie: the Cookie Store API exists only over TLS, and not in every browser.
document.cookie = `${root.dataset.scriptCookie}=1; Path=${root.dataset.cookiePath}; Max-Age=604800; SameSite=Lax`;
createKeyboard({table, search: list.search, help: () => run('help')});
// Another page's link to *Stop all*.
if (location.hash === '#stop-all' && root.dataset.role === 'admin') {
    history.replaceState(history.state, '', location.pathname + location.search);
    actions['stop-all']();
}
watchMenus();
session.watchLogin();
live.start();
