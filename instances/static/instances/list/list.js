// The list: from the account's instances to the rows of a page, by the address.

import {createAddress} from './address.js';
import {createColumns} from './columns.js';
import {createFilters, listTabs} from './filters.js';
import {createNothing} from './nothing.js';
import {createPager} from './pager.js';
import {createSorting} from './sorting.js';
import {createViews} from './views.js';
import {createPopups} from '../popups.js';
import {make, setText} from '../elements.js';
import {URGENCY} from '../order.js';

// `getRows()` and `getSelection()` return the features that show the matches; `getRedis()` its state by /health;
// `onShown()` is called when the list is shown.
export function createList({table, form, inventory, getRows, getSelection, getRedis, onShown}) {
    const headings = [...table.tHead.querySelectorAll('[data-column]')].map(heading => heading.dataset.column);
    const viewNote = make('p', {class: 'quiet'});
    const note = words => setText(viewNote, words);
    const csvLink = document.getElementById('csv');

    const address = createAddress({
        choices: Object.fromEntries(['group', 'attention'].map(name => (
            [name, listTabs(form).filter(tab => tab.name === name).map(tab => tab.value)]
        ))),
        orderings: headings,
        columns: [...table.tHead.querySelectorAll('[data-column]')].map(heading => heading.className.replace('col-', '')),
        onChange: render,
        onStep: () => {
            filters.fill();
            render();
        },
    });
    const filters = createFilters({form, address, inventory});
    const sorting = createSorting({head: table.tHead, address});
    const pager = createPager({address, table});
    const nothing = createNothing({table, inventory});
    const columns = createColumns({table, address, note});
    const views = createViews({address, getColumns: () => columns.value, note});
    document.getElementById('view-menu').append(make('div', {class: 'pop-items'}, ...views.parts, ...columns.parts, viewNote));
    const popups = createPopups({
        onOpen(id) {
            if (id === 'view-menu') {
                note('');
                views.render();
                columns.renderChoice();
            }
        },
    });

    function render() {
        const {instances} = inventory;
        columns.render();
        sorting.render();
        renderCsvLink();
        if (instances === null) {
            filters.render();
            nothing.render(null, getRedis());
            return;
        }
        const found = filters.select(sorting.sort(instances));
        const shown = pager.cut(found);
        filters.render();
        getRows().render(shown);
        filters.renderMatches(found.length);
        getSelection().renderBar(found, shown);
        nothing.render(found, getRedis());
        onShown();
    }

    function renderCsvLink() {
        const link = address.makeLink({columns: '', page: 1, ordering: address.query.ordering || URGENCY});
        csvLink.href = csvLink.pathname + link;
    }

    // Follows a link to another view of the list without a request; returns whether it is one.
    function follow(link) {
        const isView = link.pathname === location.pathname && link.origin === location.origin && !link.hash && !link.hasAttribute('download');
        if (isView) {
            address.follow(link.search || '?');
            popups.takeBack();
            if (link.dataset.page) {
                pager.showFirstRow();
            }
        }
        return isView;
    }

    return {
        address,
        render,
        follow,
        search: filters.focus,
        takeBack: popups.takeBack,
        actions: {...filters.actions, ...pager.actions, ...columns.actions, ...views.actions, ...popups.actions},
    };
}
