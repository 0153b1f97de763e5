// The pages of the table: the one before, the one after, and any by its number.

import {make, set, setText} from '../elements.js';
import {sayNumber} from '../words.js';

const PAGE_SIZE = 100;

export function createPager({address, table}) {
    const pager = document.getElementById('pager');
    const [previous, next] = ['Previous', 'Next'].map(words => make('a', {}, words));
    const field = make('input', {inputmode: 'numeric', autocomplete: 'off', maxlength: 6, size: 3});
    const size = make('span', {});
    let pages = 1;

    pager.replaceChildren(previous, make('form', {'data-submit': 'go-to-page'}, make('label', {}, 'Page ', field), ' of ', size), next);

    // Returns the instances of the page that the address names, and shows the way to the others.
    function cut(found) {
        pages = Math.max(1, Math.ceil(found.length / PAGE_SIZE));
        const page = Math.min(address.query.page, pages);
        set(pager, 'hidden', pages === 1);
        renderLink(previous, page - 1, page > 1);
        renderLink(next, page + 1, page < pages);
        setText(size, sayNumber(pages));
        if (field.dataset.shown !== String(page)) {
            field.dataset.shown = String(page);
            field.value = page;
        }
        return found.slice((page - 1) * PAGE_SIZE, page * PAGE_SIZE);
    }

    // Without a page in that direction the link stays, as a word.
    function renderLink(link, page, isPossible) {
        const hadFocus = link === document.activeElement;
        set(link.dataset, 'page', String(page));
        if (isPossible) {
            link.href = address.makeLink({page});
        } else {
            link.removeAttribute('href');
            if (hadFocus) {
                field.focus();
            }
        }
    }

    function goTo() {
        const wanted = Number.parseInt(field.value, 10);
        const page = Math.min(Math.max(wanted || address.query.page, 1), pages);
        field.dataset.shown = '';
        address.change({page}, {isStep: true});
        field.select();
        showFirstRow();
    }

    // The pager is below the rows, and another page is read from its first one.
    function showFirstRow() {
        if (table.getBoundingClientRect().top < 0) {
            table.scrollIntoView();
        }
    }

    return {cut, showFirstRow, actions: {'go-to-page': goTo}};
}
