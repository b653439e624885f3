// SPDX-License-Identifier: UNLICENSED
pragma solidity 0.8.37;

import {AnchorRegistry} from "./AnchorRegistry.sol";

/// @title What two parties said about the batches they anchored: statements they attested, disputes they opened, answered, closed.
/// @notice Reads an AnchorRegistry and never writes it. Parties are known by the names they hold there, so that an account that
/// moves goes on. Guaranteed for ever, against everybody: an action is never changed or removed; actions are numbered 1, 2, 3 ...
/// without gaps; only the party named in an action made it; a dispute is answered by its respondent and closed by its opener,
/// once; one that is closed as settled refers to a batch that both had anchored with the same size and root at that moment. A
/// running hash over all actions is kept, so that whoever reads the events can prove that he was given all of them.
/// @dev Not proved by any of this: that a statement or evidence behind a hash exists or is true, that the named key tags differ,
/// that opener and respondent are the sides of the batch (the descriptor says so, readers check), or the exact time of day.
/// There are no deadlines here: working days are counted off chain. There is no owner and no upgrade.
///
/// The address of the AnchorRegistry lies in storage rather than in the code, so that the code is the same on every chain.
contract DisputeRegistry {
    /// @notice A dispute as the contract keeps it; the rest is in the events.
    struct Dispute {
        bytes32 opener;
        bytes32 respondent;
        bytes32 batchId;
        bool closed;
    }

    /// @dev Actions, as they enter the running hash.
    uint8 private constant ATTEST = 1;
    uint8 private constant OPEN = 2;
    uint8 private constant ANSWER = 3;
    uint8 private constant CLOSE = 4;

    /// @dev Answers and outcomes.
    uint8 private constant RESEND = 3;
    uint8 private constant SETTLED = 1;
    uint8 private constant LAST_CHOICE = 3;

    /// @dev A finding is a kind (1 only_sender, 2 only_receiver, 3 differs, 4 not_withdrawn) and a key tag of 16 bytes.
    uint256 private constant FINDING = 17;
    uint256 private constant MAX_FINDINGS = 1000;
    uint8 private constant LAST_KIND = 4;

    AnchorRegistry private _anchors;
    /// @dev The block of each action: the one numbered n stands at n - 1. A reader need not search the whole chain for events.
    uint64[] private _blocks;
    uint64 private _disputeCount;
    /// @dev Over all actions; see `state`.
    bytes32 private _head;
    mapping(uint256 id => Dispute) private _disputes;
    mapping(bytes32 statement => mapping(bytes32 party => bool)) private _attested;

    /// @notice `party` says that `statement` is the SHA-256 of the statement it derived; `position` is the state of the
    /// AnchorRegistry that it read for it.
    event Attested(
        uint64 indexed number,
        bytes32 indexed party,
        bytes32 indexed statement,
        uint64 time,
        bytes32 counterparty,
        uint64 position
    );
    /// @notice Dispute `id` about a batch. Revisions are how many each side had anchored of it then; `findings` are 17 bytes
    /// each; `evidence` is the SHA-256 of a document that the opener keeps.
    event Opened(
        uint64 indexed number,
        bytes32 indexed opener,
        bytes32 indexed id,
        uint64 time,
        bytes32 respondent,
        bytes32 batchId,
        uint32 openerRevisions,
        uint32 respondentRevisions,
        bytes findings,
        bytes32 evidence
    );
    /// @notice An answer: 1 concede, 2 reject, 3 resend, then `batchId` is the batch that the respondent anchored for it.
    event Answered(
        uint64 indexed number,
        bytes32 indexed respondent,
        bytes32 indexed id,
        uint64 time,
        uint8 answer,
        bytes32 batchId,
        bytes32 evidence
    );
    /// @notice The end: 1 settled by `batchId`, whose two anchors are named by their sequence numbers; 2 taken back; 3 the
    /// opener leaves it at the answer.
    event Closed(
        uint64 indexed number,
        bytes32 indexed opener,
        bytes32 indexed id,
        uint64 time,
        uint8 outcome,
        bytes32 batchId,
        uint64 openerSequence,
        uint64 respondentSequence,
        bytes32 evidence
    );

    /// @notice The account never held a name in the AnchorRegistry.
    error NoName(address account);
    /// @notice The name has moved on from `account` to `holder`.
    error NotHolder(address account, bytes32 name, address holder);
    /// @notice The registrar of the AnchorRegistry suspended the holder of the name.
    error Suspended(address account, bytes32 name);
    error WithOneself(bytes32 name);
    error ZeroHash();
    error PositionAhead(uint64 position, uint64 actual);
    error FindingsLength(uint256 length);
    error UnknownKind(uint256 finding, uint8 kind);
    /// @notice Neither of the two anchored the batch.
    error NotAnchored(bytes32 batchId, bytes32 party, bytes32 other);
    error UnknownDispute(uint256 id);
    error AlreadyClosed(uint256 id);
    /// @notice Only `respondent` answers.
    error NotRespondent(uint256 id, bytes32 party, bytes32 respondent);
    /// @notice Only `opener` closes.
    error NotOpener(uint256 id, bytes32 party, bytes32 opener);
    error UnknownChoice(uint8 choice);
    /// @notice A batch belongs to an answer `resend` and to an outcome `settled`, and to no other.
    error BatchNotExpected(bytes32 batchId);
    /// @notice The two have not both anchored the batch, or not with the same size and root.
    error NotSettled(bytes32 batchId);

    constructor(AnchorRegistry anchors_) {
        // Anything else has no such function, or no code at all: the call fails.
        anchors_.position();
        _anchors = anchors_;
    }

    /// @notice Holder only: attest a statement. The same party and statement again changes nothing, so that sending again is safe.
    function attest(bytes32 counterparty, bytes32 statement, uint64 position) external {
        bytes32 party = _caller();
        _checkOther(party, counterparty);
        if (statement == 0) revert ZeroHash();
        if (position > _anchors.position()) revert PositionAhead(position, _anchors.position());
        if (_attested[statement][party]) return;
        _attested[statement][party] = true;
        _record(ATTEST, Attested.selector, party, statement, abi.encode(uint64(block.timestamp), counterparty, position));
    }

    /// @notice Holder only: open a dispute with `respondent` about 1 to 1000 findings of a batch that one of the two anchored.
    /// @return id Disputes are numbered from 1.
    function open(bytes32 batchId, bytes32 respondent, bytes calldata findings, bytes32 evidence)
        external
        returns (uint64 id)
    {
        bytes32 party = _caller();
        _checkOther(party, respondent);
        if (evidence == 0) revert ZeroHash();
        if (findings.length == 0 || findings.length % FINDING != 0 || findings.length > FINDING * MAX_FINDINGS) {
            revert FindingsLength(findings.length);
        }
        for (uint256 i = 0; i < findings.length; i += FINDING) {
            uint8 kind = uint8(findings[i]);
            if (kind == 0 || kind > LAST_KIND) revert UnknownKind(i / FINDING, kind);
        }
        uint32 ours = _revisions(batchId, party);
        uint32 theirs = _revisions(batchId, respondent);
        if (ours == 0 && theirs == 0) revert NotAnchored(batchId, party, respondent);
        id = ++_disputeCount;
        _disputes[id] = Dispute(party, respondent, batchId, false);
        bytes memory data =
            abi.encode(uint64(block.timestamp), respondent, batchId, ours, theirs, findings, evidence);
        _record(OPEN, Opened.selector, party, bytes32(uint256(id)), data);
    }

    /// @notice Respondent only, as often as there is something to say while the dispute is open.
    function answer(uint64 id, uint8 choice, bytes32 batchId, bytes32 evidence) external {
        bytes32 party = _caller();
        Dispute storage dispute = _open(id);
        if (party != dispute.respondent) revert NotRespondent(id, party, dispute.respondent);
        if (choice == 0 || choice > LAST_CHOICE) revert UnknownChoice(choice);
        if ((choice == RESEND) != (batchId != 0)) revert BatchNotExpected(batchId);
        if (choice == RESEND && _revisions(batchId, party) == 0) revert NotAnchored(batchId, party, party);
        bytes memory data = abi.encode(uint64(block.timestamp), choice, batchId, evidence);
        _record(ANSWER, Answered.selector, party, bytes32(uint256(id)), data);
    }

    /// @notice Opener only, once. Settled: both have anchored `batchId`, and their last revisions are equal.
    function close(uint64 id, uint8 outcome, bytes32 batchId, bytes32 evidence) external {
        bytes32 party = _caller();
        Dispute storage dispute = _open(id);
        if (party != dispute.opener) revert NotOpener(id, party, dispute.opener);
        if (outcome == 0 || outcome > LAST_CHOICE) revert UnknownChoice(outcome);
        if ((outcome == SETTLED) != (batchId != 0)) revert BatchNotExpected(batchId);
        uint64 ours = 0;
        uint64 theirs = 0;
        if (outcome == SETTLED) (ours, theirs) = _equal(batchId, party, dispute.respondent);
        dispute.closed = true;
        bytes memory data = abi.encode(uint64(block.timestamp), outcome, batchId, ours, theirs, evidence);
        _record(CLOSE, Closed.selector, party, bytes32(uint256(id)), data);
    }

    /// @notice Everything a reader needs to prove that he has all events, of one block: `head` after `count` actions is
    /// SHA-256(abi.encode(head before, number, action, party, subject, block number, SHA-256(event data))), from zero; subject is
    /// the event's third topic, event data what is not indexed.
    function state()
        external
        view
        returns (uint256 blockNumber, uint256 time, address anchors, uint64 count, uint64 disputes, bytes32 head)
    {
        return (block.number, block.timestamp, address(_anchors), uint64(_blocks.length), _disputeCount, _head);
    }

    /// @notice The blocks of at most `limit` actions in their order, the first `from` passed over.
    function blocks(uint256 from, uint256 limit) external view returns (uint64[] memory page) {
        uint256 left = from < _blocks.length ? _blocks.length - from : 0;
        page = new uint64[](limit < left ? limit : left);
        for (uint256 i = 0; i < page.length; ++i) page[i] = _blocks[from + i];
    }

    /// @dev Takes the next number, extends the running hash, and emits the event whose topics after the first are number, party
    /// and subject. `data` is the ABI encoding of what is not indexed: the very bytes that are hashed are logged.
    function _record(uint8 action, bytes32 topic, bytes32 party, bytes32 subject, bytes memory data) private {
        _blocks.push(uint64(block.number));
        uint64 place = uint64(_blocks.length);
        _head = sha256(abi.encode(_head, place, action, party, subject, block.number, sha256(data)));
        assembly ("memory-safe") {
            log4(add(data, 32), mload(data), topic, place, party, subject)
        }
    }

    /// @dev The dispute, if there is one of that number and it is open.
    function _open(uint64 id) private view returns (Dispute storage dispute) {
        dispute = _disputes[id];
        if (dispute.opener == 0) revert UnknownDispute(id);
        if (dispute.closed) revert AlreadyClosed(id);
    }

    /// @dev How many revisions of a batch a party has anchored. As below, never more is read than the last one: else a party could
    /// put its batch out of reach by revising it some thousand times.
    function _revisions(bytes32 batchId, bytes32 party) private view returns (uint32 count) {
        (count,,,) = _anchors.lastRevision(batchId, party);
    }

    /// @dev Sequence numbers of the two last revisions; reverts unless they are equal in size and root.
    function _equal(bytes32 batchId, bytes32 party, bytes32 other) private view returns (uint64, uint64) {
        (uint32 ours, uint64 ourPlace, uint64 ourSize, bytes32 ourRoot) = _anchors.lastRevision(batchId, party);
        (uint32 theirs, uint64 theirPlace, uint64 theirSize, bytes32 theirRoot) = _anchors.lastRevision(batchId, other);
        if (ours == 0 || theirs == 0 || ourSize != theirSize || ourRoot != theirRoot) revert NotSettled(batchId);
        return (ourPlace, theirPlace);
    }

    /// @dev The other party is registered (the AnchorRegistry reverts otherwise) and is another one.
    function _checkOther(bytes32 party, bytes32 other) private view {
        if (party == other) revert WithOneself(party);
        _anchors.lastRevision(0, other);
    }

    function _caller() private view returns (bytes32 name) {
        name = _anchors.nameOf(msg.sender);
        if (name == 0) revert NoName(msg.sender);
        (address holder, bool suspended,) = _anchors.standing(name);
        if (holder != msg.sender) revert NotHolder(msg.sender, name, holder);
        if (suspended) revert Suspended(msg.sender, name);
    }
}
