// What the dashboard loads when it is first used: both drawers, the menu of an instance, and the help.

import {createHelp} from './help.js';
import {createAnnotation} from './list/annotation.js';
import {createDetails} from './list/details.js';
import {createMenu} from './list/menu.js';
import {createProtecting} from './list/protecting.js';
import {createRecordings} from './list/recordings.js';
import {createSnoozing} from './list/snoozing.js';
import {createUtilization} from './list/utilization.js';
import {createOperationDetails} from './operation/details.js';

export const createOperationDrawer = createOperationDetails;

// `shared` has the features of the page, and what they share.
export function createParts(shared) {
    const {address, inventory, messages, protection, rowActions, rows, statusLine, findPlace, getSelected} = shared;
    const annotation = createAnnotation({...shared, getSelected});
    const protecting = createProtecting({...shared, getOpener: id => findPlace(id)?.querySelector('.more')});
    const snoozing = createSnoozing(shared);
    const menu = createMenu({inventory, protection, canRequest: rowActions.canRequest});
    const recordings = createRecordings({render: () => details.render()});
    const details = createDetails({
        address,
        inventory,
        protection,
        protecting,
        annotation,
        recordings,
        snoozing,
        utilization: createUtilization(),
        parts: [rowActions.update, messages.update],
        getRow: id => rows.get(id),
        statusLine,
    });
    return {
        annotation,
        details,
        actions: {
            ...createHelp().actions,
            ...annotation.actions,
            ...details.actions,
            ...menu.actions,
            ...protecting.actions,
            ...snoozing.actions,
        },
    };
}
