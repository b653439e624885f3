"""Names for fields: what a column is called, as `[a-z][a-z0-9_]*`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ledger.catalog import FIELD_NAME
from ledger.record import tidy
from ledger.source.csvheader import DEFAULT_OPERATION

KNOWN: Mapping[str, str] = {
    "统一社会信用代码": "uscc", "社会信用代码": "uscc", "信用代码": "uscc", "组织机构代码": "org_code",
    "注册号": "registration_no", "工商注册号": "registration_no", "企业名称": "name", "名称": "name", "单位名称": "name",
    "机构名称": "name", "主体名称": "name", "法人名称": "name", "行政相对人名称": "name", "行政相对人代码": "uscc",
    "企业类型": "company_type", "经济类型": "company_type", "行业": "industry", "所属行业": "industry", "经营范围": "business_scope",
    "经营状态": "status", "登记状态": "status", "状态": "status", "当前状态": "status", "注册资金": "capital", "注册资本": "capital",
    "成立日期": "founded_on", "注册日期": "registered_on", "登记日期": "registered_on", "核准日期": "approved_on",
    "登记机关": "registry", "注册地址": "address", "住所": "address", "地址": "address", "经营场所": "address",
    "所在省份": "province", "省份": "province", "城市": "city", "地区": "region", "所属地区": "region", "行政区划": "division",
    "行政区划代码": "division_code", "区划代码": "division_code", "邮政编码": "postcode",
    "姓名": "person_name", "法定代表人": "legal_rep", "法定代表人姓名": "legal_rep", "法人代表": "legal_rep", "负责人": "head",
    "负责人姓名": "head", "联系人": "contact", "联系电话": "phone", "电话": "phone", "手机": "mobile", "手机号": "mobile",
    "手机号码": "mobile", "邮箱": "email", "电子邮箱": "email", "身份证号": "id_card", "身份证号码": "id_card",
    "公民身份号码": "id_card", "证件号码": "id_number", "证件号": "id_number", "证件类型": "id_kind", "性别": "sex",
    "出生日期": "birth_date", "许可证号": "licence_no", "许可编号": "licence_no", "许可证编号": "licence_no", "证书编号": "certificate_no",
    "行政许可决定文书号": "decision_no", "行政许可决定书文号": "decision_no", "行政处罚决定书文号": "decision_no", "决定书文号": "decision_no",
    "文号": "document_no", "文书号": "document_no", "编号": "no", "序号": "serial", "许可内容": "content", "许可类别": "licence_kind",
    "许可日期": "decided_on", "许可决定日期": "decided_on", "决定日期": "decided_on", "处罚日期": "decided_on", "处罚决定日期": "decided_on",
    "处罚类别": "penalty_kind", "处罚种类": "penalty_kind", "处罚事由": "grounds", "处罚依据": "basis", "处罚内容": "content",
    "罚款金额": "fine", "没收金额": "confiscated", "处罚机关": "authority", "许可机关": "authority", "决定机关": "authority",
    "发证机关": "authority", "颁发机关": "authority", "颁发日期": "issued_on", "发证日期": "issued_on", "有效期自": "valid_from",
    "有效期起": "valid_from", "有效期至": "valid_until", "有效期止": "valid_until", "截止日期": "valid_until", "金额": "amount",
    "费用": "fee", "数量": "quantity", "单价": "price", "比例": "ratio", "备注": "remark", "说明": "remark", "类型": "kind",
    "类别": "kind", "等级": "grade", "信用等级": "credit_grade", "评分": "score", "得分": "score", "更新时间": "updated_at",
    "创建时间": "created_at", "数据来源": "data_source", "来源": "data_source", "数据来源单位": "data_source", "批次号": "batch_no",
    "日期": "day", "时间": "moment", "年度": "year", "列入日期": "listed_on", "移出日期": "removed_on", "列入原因": "grounds",
    "修复日期": "repaired_on", "修复状态": "repair_status",
}  # fmt: skip
"""Terms of the trade; a heading that is none of them becomes field_N, for a person to rename."""

MAX_NAME = 64


def field_names(titles: Sequence[str]) -> tuple[list[str], list[bool]]:
    """A field name for each column, all different, and whether it is only a number that a person should replace.

    A heading that already is a field name keeps it: nobody else may take it, or files would be read wrongly.
    """
    plain = [tidy(title) for title in titles]
    taken = {title for title in plain if FIELD_NAME.fullmatch(title)}
    names: list[str] = []
    numbered: list[bool] = []
    for number, title in enumerate(plain, 1):
        if FIELD_NAME.fullmatch(title) and title != DEFAULT_OPERATION:
            names.append(title)
            numbered.append(False)
            continue
        base = KNOWN.get(re.sub(r"[\s()（）*]", "", title), "") or _ascii(title)
        name = _free(base or f"field_{number}", taken)
        taken.add(name)
        names.append(name)
        numbered.append(not base)
    return names, numbered


def _ascii(title: str) -> str:
    """An English heading as a name: `Company Name` becomes company_name; empty for one that is not English."""
    if not title.isascii():
        return ""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", title)
    name = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")[: MAX_NAME - 8]
    # The operation column of a delivery has this name; a field must not.
    return f"{name}_field" if name == DEFAULT_OPERATION else name if FIELD_NAME.fullmatch(name) else ""


def _free(base: str, taken: set[str]) -> str:
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name
