"""What `transformers` renders for templates that use what chat templates in the wild use.

    python templates.py OUT.json

writes a list of {template, messages, text, assistant} where `assistant` is the list of character ranges inside
`{% generation %}`, or null where the template has none.
"""

import json
import sys

from transformers.utils.chat_template_utils import render_jinja_template

TURNS = [
    {"role": "system", "content": "Be <b>brief</b> & \"kind\".\n"},
    {"role": "user", "content": "  Héllo ☃\n\nline two  "},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes 'sir'."},
    {"role": "user", "content": ""},
    {"role": "assistant", "content": "Done"},
]

TEMPLATES = [
    # Namespaces, slices backwards, string methods, loop variables, whitespace control.
    """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.last or (not loop.last and reasoning) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
last {{ ns.last_query_index }}
""",
    # Optional variables, defaults, joins, trims, replaces, conditional expressions, set blocks.
    """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{% set block %}{{ messages | map(attribute='role') | join('/') | upper }}{% endset %}
{{ block | replace('USER', 'U') | lower if block else 'nothing' }}
{%- if add_generation_prompt %}{{- 'never' }}{%- endif %}
""",
    # Printing as Python prints, tojson in its forms, arithmetic.
    """{{ true }} {{ false }} {{ none }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ 7 % 4 }} {{ 1.0 }} {{ [1, 'a', none, true] }} {{ {'k': 'v"', 'n': [1]} }}
{{ messages[0] | tojson }}
{{ messages[1:3] | tojson(indent=2) }}
{{ {'b': 1, 'a': {'é': none}} | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}
{{ "it's" ~ 1 ~ true }} {{ ['x'] + ['y'] }} {{ 'a,b'.split(',') }} {{ missing }}|
{% for key, value in messages[0].items() %}{{ key }}={{ value | length }};{% endfor %}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages[-1].content.upper() }} {{ 'x' in 'xyz' }}
""",
    # Whitespace: trim_blocks, lstrip_blocks, comments, loop controls.
    """{# a comment #}
{% for message in messages %}
  {% if message.role == 'system' %}
    {% continue %}
  {% endif %}
  {{ loop.index }}: {{ message.content }}
   {%+ if loop.index > 3 %}{% break %}{% endif +%}

{% endfor %}
end   
""",
    # Generation blocks with whitespace control on either side.
    """{% for m in messages %}
{% if m.role == 'assistant' %}
A:
{%- generation -%}
  {{ m.content }}</s>
{% endgeneration %}

{% else %}
U: {{ m.content | trim }}
{% endif %}
{% endfor %}
""",
]

if __name__ == "__main__":
    cases = []
    for template in TEMPLATES:
        marked = "{%- generation" in template
        texts, ranges = render_jinja_template([TURNS], chat_template=template, return_assistant_tokens_mask=marked,
                                              bos_token="<s>", eos_token="</s>")
        cases.append({"template": template, "messages": TURNS, "text": texts[0],
                      "assistant": ranges[0] if marked else None})
    with open(sys.argv[1], "w") as file:
        json.dump(cases, file)
