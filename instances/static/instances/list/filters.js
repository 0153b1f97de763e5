// Search and filters: their fields, and which instances match.

import {setText} from '../elements.js';
import {compareKeys, compareTexts, fold, getNaturalKey} from '../order.js';
import {getGroupLabel} from '../statuses.js';

const FIELDS = ['search', 'group', 'region'];

export function createFilters({form, address, inventory}) {
    const {search: searchField, group: groupField, region: regionField} = form.elements;

    function select() {
        const {group, region, search} = address.query;
        const [foldedSearch, foldedRegion] = [fold(search), fold(region)];
        return inventory.instances.filter(one =>
            (!group || one.group === group) &&
            (!foldedRegion || fold(one.region) === foldedRegion || fold(one.clusterId) === foldedRegion) &&
            (!foldedSearch || inventory.matches(one, foldedSearch)));
    }

    function render() {
        if (inventory.instances !== null) {
            renderGroups();
            renderRegions();
        }
        for (const name of FIELDS) {
            const field = form.elements[name];
            if (field.value !== address.query[name] && document.activeElement !== field) {
                field.value = address.query[name];
            }
        }
        form.querySelector('[data-do=clear-filters]').hidden = !FIELDS.some(name => address.query[name]);
    }

    function renderGroups() {
        for (const option of [...groupField.options].filter(one => one.value)) {
            setText(option, `${getGroupLabel(option.value)} (${inventory.countGroup(option.value)})`);
        }
    }

    function renderRegions() {
        const regions = new Set(inventory.instances.map(one => one.region).filter(Boolean));
        if (address.query.region) {
            regions.add(address.query.region);
        }
        const order = (a, b) => compareKeys(getNaturalKey(a), getNaturalKey(b)) || compareTexts(a, b);
        const values = ['', ...[...regions].sort(order)];
        if (values.join('\n') !== [...regionField.options].map(option => option.value).join('\n')) {
            regionField.replaceChildren(...values.map(region => new Option(region || 'All', region)));
            regionField.value = address.query.region;
        }
    }

    function renderMatches(number) {
        const total = inventory.instances.length;
        setText(document.getElementById('matches'), number === total ? '' : `${number} of ${total} match`);
    }

    // After a step back the fields follow the address, even one that has the focus.
    function fill() {
        for (const name of FIELDS) {
            form.elements[name].value = address.query[name];
        }
    }

    function clear() {
        searchField.value = '';
        address.change({search: '', group: '', region: '', page: 1}, {isStep: true});
        searchField.focus();
    }

    form.addEventListener('input', ({target}) => {
        address.change({[target.name]: target.value, page: 1}, {isStep: false});
    });

    return {select, render, renderMatches, fill, actions: {'clear-filters': clear}};
}
