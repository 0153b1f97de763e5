// Goes back in the history instead of loading the page again: the browser then keeps the text in its fields.

document.querySelector('[data-do=back]')?.addEventListener('click', event => {
    if (history.length > 1) {
        event.preventDefault();
        history.back();
    }
});
