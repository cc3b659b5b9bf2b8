"""Control flow: Python branches on what the model chose."""

import sglc as sgl


@sgl.function
def tool_use(s, question):
    s += "To answer this question: " + question + ". "
    s += "I need to use a " + sgl.gen("tool", choices=["calculator", "search engine"]) + ". "

    if s["tool"] == "calculator":
        s += "The math expression is" + sgl.gen("expression")
    elif s["tool"] == "search engine":
        s += "The key word to search is" + sgl.gen("word")


if __name__ == "__main__":
    state = tool_use.run(question="What is 12 times 17?")
    print(state.text())
    print("tool:", state["tool"])
