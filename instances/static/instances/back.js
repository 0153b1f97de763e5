// Goes back in the history rather than to the page anew: the browser then keeps what was typed there.

document.querySelector('[data-do=back]')?.addEventListener('click', event => {
    if (history.length > 1) {
        event.preventDefault();
        history.back();
    }
});
