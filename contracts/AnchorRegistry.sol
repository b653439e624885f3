// SPDX-License-Identifier: UNLICENSED
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";

/// @title Who is party to the exchange of records, and what each party claimed, in order, for ever.
/// @notice A party anchors batches: it claims that the batch with this descriptor holds `size` entries under the RFC 9162
/// root `root`. Guaranteed for ever, against everybody including the registrar and the party itself: an anchor is never
/// changed or removed; a changed claim is a new revision beside the old one; a party's anchors are numbered 1, 2, 3 ...
/// without gaps; a name belongs to one account at a time and an account to one name for ever; registrations, moves and
/// anchors carry one common `position`, so who came first is decided exactly, even inside one block. There is no upgrade.
/// What was claimed - size, root, revision, sequence, position, time - is in storage and read by calls. Which batches a party
/// anchored is told by the events only: each names the block of the anchor before it, `lastAnchorBlock` that of the last one,
/// and a list of batches is complete if and only if the anchors that calls give for it take all sequences up to the party's
/// count, and together with the holdings all positions up to `position`.
/// @dev Not proved by any of this: that the claim is true, that the party holds the entries behind the root, that the
/// descriptor is well formed (readers refuse a malformed one), what a sketch contains, or the exact time of day (`time` is
/// what block producers wrote; some chains count it in milliseconds).
///
/// Who may do what: the registrar (DEFAULT_ADMIN_ROLE, at first the deployer) registers names, and suspends and reinstates
/// the holder of a name; it can neither move a name nor anchor for one. The holder of a name, unless suspended, anchors and may
/// move the name to another account. A name that has moved on permits its former account nothing. Everybody may read.
contract AnchorRegistry is AccessControl {
    /// @notice What one party says about one batch.
    /// @param descriptor What the batch is; its SHA-256 is the batch id. 1 to 1024 bytes, not read here.
    /// @param knownRevisions How many revisions of this batch by this party the caller knows.
    /// @param size Number of entries. @param root RFC 9162 root over them; that of the empty tree iff size is 0.
    /// @param sketch Encrypted difference sketch for the other party, or empty; published in the event only.
    struct Claim {
        bytes descriptor;
        uint32 knownRevisions;
        uint64 size;
        bytes32 root;
        bytes sketch;
    }

    /// @notice A recorded claim, as readers get it. `revision` and `sequence` count from 1.
    struct Anchor {
        bytes32 batchId;
        uint32 revision;
        uint64 size;
        bytes32 root;
        uint64 sequence;
        uint64 time;
        uint64 blockNumber;
        uint64 position;
    }

    /// @notice One account's tenure of a name, from `position` on.
    struct Holding {
        address account;
        uint64 position;
        uint64 blockNumber;
        uint64 time;
    }

    /// @notice Names one revision of one batch.
    struct Which {
        bytes32 batchId;
        uint32 revision;
    }

    /// @dev One slot: all that whoever anchors is asked for. `anchors` is the sequence of the name's last anchor.
    struct Seat {
        address holder;
        uint32 anchors;
        bool suspended;
    }

    /// @dev Two slots. The width of every counter is checked when it grows. `count`, the number of revisions so far, is kept
    /// in revision 1 only, so that the first anchor of a batch writes two fresh slots and no third.
    struct Revision {
        bytes32 root;
        uint64 size;
        uint48 time;
        uint40 blockNumber;
        uint40 position;
        uint32 sequence;
        uint32 count;
    }

    /// @dev SHA-256 of nothing: the root of the empty tree.
    bytes32 private constant EMPTY_ROOT = 0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855;
    uint256 private constant MAX_DESCRIPTOR = 1024;
    /// @dev A sketch has a multiple of four cells of 72 bytes, at most 1800.
    uint256 private constant SKETCH_STEP = 4 * 72;
    uint256 private constant MAX_SKETCH = 1800 * 72;

    /// @notice The number of registrations, moves and anchors so far; each one took the next value, from 1.
    uint64 public position;
    /// @notice The block of the last anchor of any party; 0 before the first.
    uint64 public lastAnchorBlock;
    /// @notice The name an account holds or once held; zero if none. Never changes once set.
    mapping(address account => bytes32 name) public nameOf;

    bytes32[] private _names;
    mapping(bytes32 name => Holding[]) private _holdings;
    mapping(bytes32 name => Seat) private _seats;
    mapping(bytes32 name => mapping(bytes32 batchId => mapping(uint256 revision => Revision))) private _revisions;

    event Registered(bytes32 indexed name, address indexed account, uint64 position);
    event Moved(bytes32 indexed name, address indexed from, address indexed to, uint64 position);
    /// @notice The registrar suspended or reinstated the holder of a name.
    event Suspension(bytes32 indexed name, address indexed account, bool suspended);
    /// @notice `previousBlock` has the anchor before this one, of whichever party; 0 if this is the first.
    event Anchored(
        bytes32 indexed batchId,
        bytes32 indexed party,
        uint64 indexed sequence,
        uint32 revision,
        uint64 size,
        bytes32 root,
        uint64 previousBlock,
        bytes descriptor,
        bytes sketch
    );

    /// @notice Not `[a-z][a-z0-9_-]{0,31}`, left-aligned and padded with zeros.
    error InvalidName(bytes32 name);
    error NameTaken(bytes32 name, address holder);
    error UnknownName(bytes32 name);
    /// @notice The account holds, or once held, `name`.
    error AccountUsed(address account, bytes32 name);
    error ZeroAccount();
    /// @notice The account never held a name.
    error NoName(address account);
    /// @notice The name has moved on from `account` to `holder`.
    error NotHolder(address account, bytes32 name, address holder);
    /// @notice The registrar suspended the holder of `name`.
    error Suspended(address account, bytes32 name);
    error DescriptorLength(uint256 claim, uint256 length);
    error SizeRootMismatch(bytes32 batchId, uint64 size, bytes32 root);
    error SketchLength(bytes32 batchId, uint256 length);
    /// @notice Other values than the last revision's, and the caller does not know all `actual` revisions.
    error RevisionMismatch(bytes32 batchId, uint32 known, uint32 actual);
    /// @notice A counter outgrew its place in storage.
    error Exhausted();

    constructor() {
        _grantRole(DEFAULT_ADMIN_ROLE, msg.sender);
    }

    /// @notice Registrar only: give a new name to an account that never held one.
    function register(bytes32 name, address account) external onlyRole(DEFAULT_ADMIN_ROLE) {
        _checkName(name);
        if (_holdings[name].length != 0) revert NameTaken(name, _seats[name].holder);
        _names.push(name);
        emit Registered(name, account, _hold(name, account));
    }

    /// @notice Registrar only: keep the holder of a name from anchoring and from moving it.
    function suspend(bytes32 name) external onlyRole(DEFAULT_ADMIN_ROLE) {
        _setSuspended(name, true);
    }

    /// @notice Registrar only: end a suspension.
    function reinstate(bytes32 name) external onlyRole(DEFAULT_ADMIN_ROLE) {
        _setSuspended(name, false);
    }

    /// @notice Holder only: hand the caller's name to an account that never held one. A suspended holder cannot.
    /// @dev The new account is not asked: a wrong address loses the name, for nobody can take it back.
    function move(address newAccount) external {
        (bytes32 name,) = _caller();
        emit Moved(name, msg.sender, newAccount, _hold(name, newAccount));
    }

    /// @notice Holder only: record claims about batches, all or none.
    /// @dev For each: no revision yet - knownRevisions must be 0. Size and root as in the last revision - nothing happens, no
    /// event, whatever knownRevisions says, so that sending again is safe. Other values - a new revision, only if
    /// knownRevisions is the number of revisions there are.
    function anchor(Claim[] calldata claims) external {
        (bytes32 party, uint32 anchored) = _caller();
        uint64 sequence = anchored;
        uint64 last = position;
        uint64 previousBlock = lastAnchorBlock;
        for (uint256 i = 0; i < claims.length; ++i) {
            Claim calldata claim = claims[i];
            bytes calldata descriptor = claim.descriptor;
            bytes calldata sketch = claim.sketch;
            if (descriptor.length == 0 || descriptor.length > MAX_DESCRIPTOR) revert DescriptorLength(i, descriptor.length);
            bytes32 batchId = sha256(descriptor);
            if ((claim.size == 0) != (claim.root == EMPTY_ROOT)) revert SizeRootMismatch(batchId, claim.size, claim.root);
            if (sketch.length % SKETCH_STEP != 0 || sketch.length > MAX_SKETCH) revert SketchLength(batchId, sketch.length);
            uint32 revision = _record(party, batchId, claim, last + 1, sequence + 1);
            if (revision == 0) continue;
            ++last;
            ++sequence;
            emit Anchored(
                batchId, party, sequence, revision, claim.size, claim.root, previousBlock, descriptor, sketch
            );
            previousBlock = uint64(block.number);
        }
        if (sequence == anchored) return;
        _seats[party].anchors = uint32(sequence);
        position = last;
        lastAnchorBlock = previousBlock;
    }

    /// @notice Every name, in the order of registration.
    function parties() external view returns (bytes32[] memory) {
        return _names;
    }

    /// @notice The accounts that held `name`, in order; the last one holds it now.
    function holdings(bytes32 name) external view returns (Holding[] memory) {
        if (_holdings[name].length == 0) revert UnknownName(name);
        return _holdings[name];
    }

    /// @notice Who holds `name`, whether suspended, and how many anchors there are under it: the sequence of the last one.
    function standing(bytes32 name) external view returns (address holder, bool suspended, uint32 count) {
        Seat memory seat = _seats[name];
        if (seat.holder == address(0)) revert UnknownName(name);
        return (seat.holder, seat.suspended, seat.anchors);
    }

    /// @notice These anchors of a party; one that is not there has the sequence 0.
    function anchors(bytes32 name, Which[] calldata which) external view returns (Anchor[] memory found) {
        if (_holdings[name].length == 0) revert UnknownName(name);
        found = new Anchor[](which.length);
        for (uint256 i = 0; i < which.length; ++i) found[i] = _anchor(name, which[i].batchId, which[i].revision);
    }

    /// @notice All revisions of a party's claim about one batch, in order; empty if it never anchored it.
    function revisions(bytes32 batchId, bytes32 name) external view returns (Anchor[] memory all) {
        if (_holdings[name].length == 0) revert UnknownName(name);
        all = new Anchor[](_revisions[name][batchId][1].count);
        for (uint32 i = 0; i < all.length; ++i) all[i] = _anchor(name, batchId, i + 1);
    }

    /// @notice The last revision of a party's claim about one batch; all zero if it never anchored it. Asking costs the same
    /// however many revisions there are, so that a contract which asks cannot be stopped by a party that revises without end.
    function lastRevision(bytes32 batchId, bytes32 name)
        external
        view
        returns (uint32 revision, uint64 sequence, uint64 size, bytes32 root)
    {
        if (_holdings[name].length == 0) revert UnknownName(name);
        revision = _revisions[name][batchId][1].count;
        Revision storage last = _revisions[name][batchId][revision];
        return (revision, last.sequence, last.size, last.root);
    }

    /// @notice Several of the views above answered from one and the same block, whose number and time come with them.
    function read(bytes[] calldata calls)
        external
        view
        returns (uint256 blockNumber, uint256 time, uint64 lastPosition, bytes[] memory results)
    {
        results = new bytes[](calls.length);
        for (uint256 i = 0; i < calls.length; ++i) {
            (bool done, bytes memory answer) = address(this).staticcall(calls[i]);
            if (!done) {
                assembly ("memory-safe") {
                    revert(add(answer, 32), mload(answer))
                }
            }
            results[i] = answer;
        }
        return (block.number, block.timestamp, position, results);
    }

    /// @dev Records the claim with this position and sequence and returns its revision; 0, and nothing recorded, if it only
    /// repeats the last revision.
    function _record(bytes32 party, bytes32 batchId, Claim calldata claim, uint64 place, uint64 sequence)
        private
        returns (uint32 count)
    {
        mapping(uint256 => Revision) storage known = _revisions[party][batchId];
        count = known[1].count;
        if (count != 0) {
            Revision storage last = known[count];
            if (last.root == claim.root && last.size == claim.size) return 0;
        }
        if (claim.knownRevisions != count) revert RevisionMismatch(batchId, claim.knownRevisions, count);
        if (
            sequence > type(uint32).max || place > type(uint40).max || block.number > type(uint40).max
                || block.timestamp > type(uint48).max
        ) revert Exhausted();
        ++count;
        known[count] = Revision({
            root: claim.root,
            size: claim.size,
            time: uint48(block.timestamp),
            blockNumber: uint40(block.number),
            position: uint40(place),
            sequence: uint32(sequence),
            count: count == 1 ? 1 : 0
        });
        if (count > 1) known[1].count = count;
    }

    /// @dev Makes `account` the holder of `name` from the next position on, which it returns.
    function _hold(bytes32 name, address account) private returns (uint64) {
        if (account == address(0)) revert ZeroAccount();
        if (nameOf[account] != 0) revert AccountUsed(account, nameOf[account]);
        nameOf[account] = name;
        _seats[name].holder = account;
        _holdings[name].push(Holding(account, ++position, uint64(block.number), uint64(block.timestamp)));
        return position;
    }

    function _setSuspended(bytes32 name, bool suspended) private {
        Seat storage seat = _seats[name];
        if (seat.holder == address(0)) revert UnknownName(name);
        seat.suspended = suspended;
        emit Suspension(name, seat.holder, suspended);
    }

    /// @dev The name that the caller holds and may act for, and how many anchors it has.
    function _caller() private view returns (bytes32 name, uint32 anchored) {
        name = nameOf[msg.sender];
        if (name == 0) revert NoName(msg.sender);
        Seat memory seat = _seats[name];
        if (seat.holder != msg.sender) revert NotHolder(msg.sender, name, seat.holder);
        if (seat.suspended) revert Suspended(msg.sender, name);
        return (name, seat.anchors);
    }

    function _anchor(bytes32 name, bytes32 batchId, uint32 revision) private view returns (Anchor memory) {
        Revision storage r = _revisions[name][batchId][revision];
        return Anchor(batchId, revision, r.size, r.root, r.sequence, r.time, r.blockNumber, r.position);
    }

    function _checkName(bytes32 name) private pure {
        bool ended = false;
        for (uint256 i = 0; i < 32; ++i) {
            bytes1 c = name[i];
            bool letter = c >= "a" && c <= "z";
            bool later = i > 0 && ((c >= "0" && c <= "9") || c == "_" || c == "-");
            if (c == 0 && i > 0) ended = true;
            else if (ended || !(letter || later)) revert InvalidName(name);
        }
    }
}
