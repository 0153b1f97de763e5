// A drawer: the panel at the page's right edge, in front of the whole page on a small screen. One is open at a time.

const ANNOUNCEMENT = 'drawer-opens';
const isNarrow = matchMedia('(max-width: 899px)');

// `element` is a child of the body; it has a heading that takes the focus (h2 with tabindex="-1") and a button with
// `data-close`. `onClose()` is called whenever the drawer closes.
export function createDrawer(element, {onClose}) {
    let opener = null;

    // `from` is what opened the drawer, and gets the focus back: an element, or a function that finds it, for an
    // element that can be rendered anew meanwhile.
    function open(from) {
        document.dispatchEvent(new CustomEvent(ANNOUNCEMENT, {detail: element}));
        opener = from;
        element.hidden = false;
        updateRest();
        element.querySelector('h2').focus({preventScroll: true});
    }

    function close() {
        if (element.hidden) {
            return;
        }
        // A person who works in the table beside the drawer stays there.
        const hasFocus = element.contains(document.activeElement) || document.activeElement === document.body;
        element.hidden = true;
        updateRest();
        onClose();
        if (hasFocus) {
            const found = typeof opener === 'function' ? opener() : opener;
            (found?.checkVisibility() ? found : document.getElementById('content')).focus({preventScroll: true});
        }
    }

    // In front of the page the drawer is modal: neither the focus nor a screen reader leaves it, but for dialogs and for
    // results, which are heard.
    function updateRest() {
        for (const other of document.querySelectorAll('body > :not(#content, [role=status]), #content > :not(dialog)')) {
            if (other !== element) {
                other.inert = !element.hidden && isNarrow.matches;
            }
        }
    }

    isNarrow.addEventListener('change', () => {
        if (!element.hidden) {
            updateRest();
        }
    });
    document.addEventListener(ANNOUNCEMENT, ({detail}) => {
        if (detail !== element) {
            close();
        }
    });
    element.addEventListener('click', ({target}) => {
        if (target.closest('[data-close]')) {
            close();
        }
    });
    // A feature that handles Escape itself, as an open form or menu does, prevents the default. A search field with text
    // is emptied by Escape, by the browser.
    document.addEventListener('keydown', event => {
        const isUsed = event.defaultPrevented || event.target.closest('dialog')
            || (event.target.type === 'search' && event.target.value);
        if (event.key === 'Escape' && !isUsed) {
            close();
        }
    });

    return {
        open,
        close,
        get isOpen() {
            return !element.hidden;
        },
    };
}
