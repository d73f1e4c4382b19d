r"""The papers that docstrings refer to, by their arXiv number or by their place.

An entry is the year, the title and the authors as BibTeX writes them.
"""

from __future__ import annotations

from typing import NamedTuple


class Paper(NamedTuple):
    """One paper."""

    year: int
    title: str
    authors: str
    venue: str = ''  # where it is not on arXiv


PAPERS: dict[str, Paper] = {
    '1806.06573': Paper(
        2018,
        'Distributed Learning with Compressed Gradients',
        'Khirirat, Sarit and Feyzmahdavian, Hamid Reza and Johansson, Mikael',
    ),
    '1903.11991': Paper(
        2019,
        'Parabolic Approximation Line Search for {DNNs}',
        'Mutschler, Maximus and Zell, Andreas',
    ),
    '2003.06377': Paper(
        2020,
        'A Flexible Framework for Communication-Efficient Machine Learning',
        r'Khirirat, Sarit and Magn{\'u}sson, Sindri and Aytekin, Arda and Johansson, Mikael',
    ),
    'Interspeech 2014': Paper(
        2014,
        '1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Distributed '
        'Training of Speech {DNNs}',
        'Seide, Frank and Fu, Hao and Droppo, Jasha and Li, Gang and Yu, Dong',
        'Interspeech',
    ),
    'Interspeech 2015': Paper(
        2015,
        'Scalable Distributed {DNN} Training Using Commodity {GPU} Cloud Computing',
        'Strom, Nikko',
        'Interspeech',
    ),
    '1107.2848': Paper(
        2011,
        'Iteration Complexity of Randomized Block-Coordinate Descent Methods for Minimizing a '
        'Composite Function',
        r'Richt{\'a}rik, Peter and Tak{\'a}{\v{c}}, Martin',
    ),
    '1609.08326': Paper(
        2016,
        'Asynchronous Stochastic Gradient Descent with Delay Compensation',
        'Zheng, Shuxin and Meng, Qi and Wang, Taifeng and Chen, Wei and Yu, Nenghai and Ma, '
        'Zhi-Ming and Liu, Tie-Yan',
    ),
    '1610.02132': Paper(
        2016,
        '{QSGD}: Communication-Efficient {SGD} via Gradient Quantization and Encoding',
        'Alistarh, Dan and Grubic, Demjan and Li, Jerry and Tomioka, Ryota and Vojnovic, Milan',
    ),
    '1611.00429': Paper(
        2016,
        'Distributed Mean Estimation with Limited Communication',
        'Suresh, Ananda Theertha and Yu, Felix X. and Kumar, Sanjiv and McMahan, H. Brendan',
    ),
    '1705.07878': Paper(
        2017,
        '{TernGrad}: Ternary Gradients to Reduce Communication in Distributed Deep Learning',
        'Wen, Wei and Xu, Cong and Yan, Feng and Wu, Chunpeng and Wang, Yandan and Chen, Yiran and '
        'Li, Hai',
    ),
    '1710.09854': Paper(
        2017,
        'Gradient Sparsification for Communication-Efficient Distributed Optimization',
        'Wangni, Jianqiao and Wang, Jialei and Liu, Ji and Zhang, Tong',
    ),
    '1712.01887': Paper(
        2017,
        'Deep Gradient Compression: Reducing the Communication Bandwidth for Distributed Training',
        'Lin, Yujun and Han, Song and Mao, Huizi and Wang, Yu and Dally, William J.',
    ),
    '1808.07217': Paper(
        2018,
        "Don't Use Large Mini-Batches, Use Local {SGD}",
        'Lin, Tao and Stich, Sebastian U. and Patel, Kumar Kshitij and Jaggi, Martin',
    ),
    '1809.07599': Paper(
        2018,
        'Sparsified {SGD} with Memory',
        'Stich, Sebastian U. and Cordonnier, Jean-Baptiste and Jaggi, Martin',
    ),
    '1901.09269': Paper(
        2019,
        'Distributed Learning with Compressed Gradient Differences',
        'Mishchenko, Konstantin and Gorbunov, Eduard and '
        r'Tak{\'a}{\v{c}}, Martin and Richt{\'a}rik, Peter',
    ),
    '1901.09847': Paper(
        2019,
        'Error Feedback Fixes {SignSGD} and other Gradient Compression Schemes',
        'Karimireddy, Sai Praneeth and Rebjock, Quentin and Stich, Sebastian U. and Jaggi, Martin',
    ),
    '1904.05115': Paper(
        2019,
        'Stochastic Distributed Learning with Gradient Quantization and Variance Reduction',
        r'Horv{\'a}th, Samuel and Kovalev, Dmitry and Mishchenko, Konstantin and '
        r'Richt{\'a}rik, Peter and Stich, Sebastian U.',
    ),
    '1905.05957': Paper(
        2019,
        '{DoubleSqueeze}: Parallel Stochastic Gradient Descent with Double-Pass Error-Compensated '
        'Compression',
        'Tang, Hanlin and Lian, Xiangru and Yu, Chen and Zhang, Tong and Liu, Ji',
    ),
    '1909.10327': Paper(
        2019,
        'Compressed Gradient Methods with Hessian-Aided Error Compensation',
        r'Khirirat, Sarit and Magn{\'u}sson, Sindri and Johansson, Mikael',
    ),
    '1905.10988': Paper(
        2019,
        'Natural Compression for Distributed Deep Learning',
        r'Horv{\'a}th, Samuel and Ho, Chen-Yu and Horv{\'a}th, {\v{L}}udov{\'i}t and Sahu, Atal '
        r'Narayan and Canini, Marco and Richt{\'a}rik, Peter',
    ),
    '1905.13727': Paper(
        2019,
        '{PowerSGD}: Practical Low-Rank Gradient Compression for Distributed Optimization',
        'Vogels, Thijs and Karimireddy, Sai Praneeth and Jaggi, Martin',
    ),
    '2306.08881': Paper(
        2023,
        'Evaluation and Optimization of Gradient Compression for Distributed Deep Learning',
        'Zhang, Lin and Zhang, Longteng and Shi, Shaohuai and Chu, Xiaowen and Li, Bo',
    ),
    '2504.05295': Paper(
        2025,
        '{Dion}: Distributed Orthonormalized Updates',
        'Ahn, Kwangjun and Xu, Byron and Abreu, Natalie and Fan, Ying and Magakyan, Gagik and '
        'Sharma, Pratyusha and Zhan, Zheng and Langford, John',
    ),
    '2509.11254': Paper(
        2025,
        'From {PowerSGD} to {PowerSGD+}: Low-Rank Gradient Compression for Distributed '
        'Optimization with Convergence Guarantees',
        'Xie, Shengping and Chen, Chuyan and Yuan, Kun',
    ),
    '2006.11077': Paper(
        2020,
        'A Better Alternative to Error Feedback for Communication-Efficient Distributed Learning',
        r'Horv{\'a}th, Samuel and Richt{\'a}rik, Peter',
    ),
    '2202.06009': Paper(
        2022,
        'Maximizing Communication Efficiency for Large-scale Training via 0/1 {Adam}',
        'Lu, Yucheng and Li, Conglong and Zhang, Minjia and De Sa, Christopher and He, Yuxiong',
    ),
    '2102.02888': Paper(
        2021,
        '1-bit {Adam}: Communication Efficient Large-Scale Training with '
        "{Adam}'s Convergence Speed",
        'Tang, Hanlin and Gan, Shaoduo and Awan, Ammar Ahmad and Rajbhandari, Samyam and '
        'Li, Conglong and Lian, Xiangru and Liu, Ji and Zhang, Ce and He, Yuxiong',
    ),
    '2102.07845': Paper(
        2021,
        '{MARINA}: Faster Non-Convex Distributed Learning with Compression',
        'Gorbunov, Eduard and Burlachenko, Konstantin and Li, Zhize and '
        r'Richt{\'a}rik, Peter',
    ),
    '2105.08339': Paper(
        2021,
        '{DRIVE}: One-bit Distributed Mean Estimation',
        'Vargaftik, Shay and Ben Basat, Ran and Portnoy, Amit and Mendelson, Gal and '
        'Ben-Itzhak, Yaniv and Mitzenmacher, Michael',
    ),
    '2106.05203': Paper(
        2021,
        '{EF21}: A New, Simpler, Theoretically Better, and Practically Faster Error Feedback',
        r'Richt{\'a}rik, Peter and Sokolov, Igor and Fatkhullin, Ilyas',
    ),
    '2108.00951': Paper(
        2021,
        'Rethinking Gradient Sparsification as Total Error Minimization',
        'Sahu, Atal Narayan and Dutta, Aritra and Abdelmoniem, Ahmed M. and Banerjee, Trambak and '
        'Canini, Marco and Kalnis, Panos',
    ),
    '2108.08842': Paper(
        2021,
        '{EDEN}: Communication-Efficient and Robust Distributed Mean Estimation for Federated '
        'Learning',
        'Vargaftik, Shay and Ben Basat, Ran and Portnoy, Amit and Mendelson, Gal and '
        'Ben-Itzhak, Yaniv and Mitzenmacher, Michael',
    ),
    '2110.02861': Paper(
        2021,
        '8-bit Optimizers via Block-wise Quantization',
        'Dettmers, Tim and Lewis, Mike and Shleifer, Sam and Zettlemoyer, Luke',
    ),
    '2202.08550': Paper(
        2022,
        'Delay-adaptive Step-sizes for Asynchronous Learning',
        r'Wu, Xuyang and Magn{\'u}sson, Sindri and Feyzmahdavian, Hamid Reza and Johansson, Mikael',
    ),
    '2206.07638': Paper(
        2022,
        'Asynchronous {SGD} Beats Minibatch {SGD} Under Arbitrary Delays',
        'Mishchenko, Konstantin and Bach, Francis and Even, Mathieu and Woodworth, Blake',
    ),
    '2206.08307': Paper(
        2022,
        'Sharper Convergence Guarantees for Asynchronous {SGD} for Distributed and Federated '
        'Learning',
        'Koloskova, Anastasia and Stich, Sebastian U. and Jaggi, Martin',
    ),
    '2209.05433': Paper(
        2022,
        '{FP8} Formats for Deep Learning',
        'Micikevicius, Paulius and others',
    ),
    '2305.15155': Paper(
        2023,
        'Momentum Provably Improves Error Feedback!',
        r'Fatkhullin, Ilyas and Tyurin, Alexander and Richt{\'a}rik, Peter',
    ),
    '2311.08105': Paper(
        2023,
        '{DiLoCo}: Distributed Low-Communication Training of Language Models',
        'Douillard, Arthur and others',
    ),
    '2311.05645': Paper(
        2023,
        '{EControl}: Fast Distributed Optimization with Compression and Error Control',
        'Gao, Yuan and Islamov, Rustem and Stich, Sebastian U.',
    ),
    '2408.07503': Paper(
        2024,
        'Faster Stochastic Optimization with Arbitrary Delays via Asynchronous Mini-Batching',
        'Attia, Amit and Gaash, Ofir and Koren, Tomer',
    ),
    '2411.19870': Paper(
        2024,
        '{DeMo}: Decoupled Momentum Optimization',
        'Peng, Bowen and Quesnelle, Jeffrey and Kingma, Diederik P.',
    ),
    '2501.18512': Paper(
        2025,
        'Streaming {DiLoCo} with Overlapping Communication: Towards a Distributed Free Lunch',
        'Douillard, Arthur and others',
    ),
    '2505.23725': Paper(
        2025,
        '{MuLoCo}: {Muon} is a Practical Inner Optimizer for {DiLoCo}',
        r'Th{\'e}rien, Benjamin and Huang, Xiaolong and Rish, Irina and Belilovsky, Eugene',
    ),
    '2508.15706': Paper(
        2025,
        'Communication Efficient {LLM} Pre-training with {SparseLoCo}',
        r'Sarfi, Amir and Th{\'e}rien, Benjamin and Lidin, Joel and Belilovsky, Eugene',
    ),
    '2511.14501': Paper(
        2025,
        'Improved Convergence in Parameter-Agnostic Error Feedback through Momentum',
        'Sadiev, Abdurakhmon and Demidovich, Yury and Sokolov, Igor and Malinovsky, Grigory and '
        r'Khirirat, Sarit and Richt{\'a}rik, Peter',
    ),
}
