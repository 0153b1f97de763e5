// The dashboard: makes the features, gives each what it needs of the others, and hands presses and keys to them.

import {hasBanners, showBanners} from './banners.js';
import {createCards} from './cards/cards.js';
import {createFragments} from './cards/fragment.js';
import {createConfirm} from './confirm.js';
import {isDisabled} from './elements.js';
import {createHelp} from './help.js';
import {createAddress} from './list/address.js';
import {createAnnotation} from './list/annotation.js';
import {createDetails} from './list/details.js';
import {createFilters, EMPTY} from './list/filters.js';
import {createInventory} from './list/inventory.js';
import {createMenu} from './list/menu.js';
import {createNothing} from './list/nothing.js';
import {createPager} from './list/pager.js';
import {createProtection} from './list/protection.js';
import {createRecordings} from './list/recordings.js';
import {createRowActions} from './list/row-actions.js';
import {createRowMessages} from './list/row-messages.js';
import {createRows} from './list/rows.js';
import {createSelection} from './list/selection.js';
import {createSorting} from './list/sorting.js';
import {createLive} from './live.js';
import {createLiveState} from './live-state.js';
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
const form = document.getElementById('filters');

const statusLine = createStatusLine();
const overview = createOverview();
const inventory = createInventory({overview, asOf: document.querySelector('#figure-sync time').dateTime});
const cards = createCards({inventory});
const fragments = createFragments();
const live = createLive({
    read: readService,
    hasTrouble: () => Boolean(inventory.failure && !session.isLost()),
    hasFailed: () => inventory.failure !== null,
    onTick: tick,
});
const toolbar = createToolbar({inventory, live, statusLine});
const liveState = createLiveState({inventory, overview});
const operations = createOperations({root, onChange: renderTitle, refresh: live.refresh});

const address = createAddress({
    groups: [...form.elements.group.options].map(option => option.value),
    columns: [...table.tHead.querySelectorAll('[data-column]')].map(heading => heading.dataset.column),
    onChange: render,
    onStep: () => {
        filters.fill();
        render();
    },
});
const filters = createFilters({form, address, inventory});
const sorting = createSorting({head: table.tHead, address});
const pager = createPager({address});
const nothing = createNothing({inventory});
const ask = createConfirm();
const messages = createRowMessages({
    getRow: findPlace,
    getName: id => inventory.get(id)?.name || id,
    render,
});
const protection = createProtection({
    ask,
    inventory,
    messages,
    refreshAnew: live.refreshAnew,
    render,
    getOpener: id => findPlace(id)?.querySelector('.more'),
});
const annotation = createAnnotation({
    statusLine,
    getSelected: () => selection.listIds(),
    refreshAnew: live.refreshAnew,
    render,
});
const stopAll = createStopAll({inventory, overview, isProtected: id => !protection.permits('stop', id), statusLine});
const rowActions = createRowActions({
    ask,
    inventory,
    messages,
    protection,
    getRow: findPlace,
    refresh: live.refresh,
    render,
});
const menu = createMenu({inventory, protection, canRequest: rowActions.canRequest});
const recordings = createRecordings({render: () => details.render()});
const details = createDetails({
    address,
    inventory,
    protection,
    annotation,
    recordings,
    parts: [rowActions.update, menu.updateRow, messages.update],
    getRow: id => rows.get(id),
    statusLine,
});
const help = createHelp();
const selection = createSelection({inventory, canRequest: isPossible, preview: operations.preview, render});
const rows = createRows({
    table,
    getRequest: rowActions.getRequest,
    // Messages come last: an action may have something new to say.
    parts: [protection.updateRow, selection.updateRow, rowActions.update, menu.updateRow, messages.update],
});

const actions = {
    ...toolbar.actions,
    ...live.actions,
    ...filters.actions,
    ...details.actions,
    ...rowActions.actions,
    ...messages.actions,
    ...protection.actions,
    ...annotation.actions,
    ...menu.actions,
    ...help.actions,
    ...selection.actions,
    ...operations.actions,
    'stop-all': () => operations.preview('stop', null, stopAll.count()),
};

// Returns where an instance is shown to the visitor: in the drawer that has the focus, or in its row.
function findPlace(id) {
    return details.getFocused(id) || rows.get(id);
}

function isPossible(kind, one) {
    return canRequest(kind, one) && protection.permits(kind, one.id);
}

function render() {
    filters.render();
    sorting.render();
    renderTitle();
    if (inventory.instances === null) {
        return;
    }
    const found = sorting.sort(filters.select());
    const shown = pager.cut(found);
    rows.render(shown);
    filters.renderMatches(found.length);
    selection.renderBar(found, shown);
    stopAll.render();
    nothing.render(found);
    cards.render();
    details.render();
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
        protection.take(overview.value.protections);
    }
    if (!inventory.failure) {
        forget(health.services, hadFailed);
    } else if (inventory.failure.error instanceof LoggedOut) {
        // Its notice has the way to log in.
        session.renew();
    }
    showBanners(inventory, health ? health.warnings : []);
    rows.showAge(inventory.failure !== null);
    render();
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

function follow(link) {
    const heading = link.closest('[data-column]');
    if (heading) {
        sorting.follow(heading);
    } else if (link.dataset.page) {
        address.change({page: Number(link.dataset.page)}, {isStep: true});
    } else {
        address.change({...EMPTY, ...Object.fromEntries(new URLSearchParams(link.search)), page: 1}, {isStep: true});
    }
}

root.addEventListener('click', event => {
    const button = event.target.closest('[data-do]');
    const link = event.target.closest('th[data-column] a, #pager a, #cards a[href^="?"]');
    if (button && !isDisabled(button)) {
        actions[button.dataset.do](button, button.closest('[data-id]'), event);
    } else if (link && !event.metaKey && !event.ctrlKey && !event.shiftKey && inventory.instances !== null) {
        event.preventDefault();
        follow(link);
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
        && [operations, annotation, toolbar].some(feature => feature.takeBack(event.target))) {
        // The drawer stays open.
        event.preventDefault();
    }
});

for (const element of document.querySelectorAll('.needs-script')) {
    element.hidden = false;
}
filters.render();
sorting.render();
for (const element of document.querySelectorAll('.without-script')) {
    element.hidden = true;
}
// The rows come from the browser's cache or from the API; the server needn't send them with the next page.
// biome-ignore lint/suspicious/noDocumentCookie: the Cookie Store API exists only over TLS, and not in every browser.
document.cookie = `${root.dataset.scriptCookie}=1; Path=/; Max-Age=604800; SameSite=Lax`;
watchMenus();
session.watchLogin();
live.start();
