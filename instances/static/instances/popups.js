// Parts of the toolbar that a button opens below itself where the window is too narrow for them.

export function createPopups({onOpen}) {
    function getOpen() {
        return document.querySelector('.pop.is-open');
    }

    function toggle(button) {
        const popup = button.parentElement;
        const isOpen = popup.classList.contains('is-open');
        close();
        if (!isOpen) {
            onOpen(popup.id);
            popup.classList.add('is-open');
            button.setAttribute('aria-expanded', 'true');
        }
    }

    // Returns whether one was open.
    function close() {
        const popup = getOpen();
        if (popup) {
            const button = popup.querySelector('[data-do=pop]');
            const hadFocus = popup.contains(document.activeElement);
            popup.classList.remove('is-open');
            button.setAttribute('aria-expanded', 'false');
            if (hadFocus) {
                button.focus();
            }
        }
        return Boolean(popup);
    }

    for (const type of ['pointerdown', 'focusin']) {
        document.addEventListener(type, ({target}) => {
            if (getOpen() && !target.closest('.pop.is-open')) {
                close();
            }
        });
    }
    // Before the action itself, which may open a dialog: that gives the focus back to the popup's button.
    document.addEventListener('click', ({target}) => {
        if (target.closest('.pop.is-open:is(#account-menu, #brakes) > .pop-items button:not([data-do=pop])')) {
            close();
        }
    }, {capture: true});

    return {takeBack: close, actions: {pop: toggle}};
}
