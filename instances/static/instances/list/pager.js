// The pages of the table.

const PAGE_SIZE = 100;

export function createPager({address}) {
    const pager = document.getElementById('pager');

    // Returns the instances of the page that the address names, and shows the links to the others.
    function cut(found) {
        const pages = Math.max(1, Math.ceil(found.length / PAGE_SIZE));
        const page = Math.min(address.query.page, pages);
        render(page, pages);
        return found.slice((page - 1) * PAGE_SIZE, page * PAGE_SIZE);
    }

    function render(page, pages) {
        const look = `${page} ${pages}`;
        if (pager.dataset.shown === look) {
            return;
        }
        const hadFocus = pager.contains(document.activeElement);
        pager.dataset.shown = look;
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
        link.href = address.makeLink({page});
        link.dataset.page = page;
        return link;
    }

    return {cut};
}
